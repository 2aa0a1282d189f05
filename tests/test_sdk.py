"""Calls of the SDK: their time-out, and the messages of their exceptions."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import requests
from azureml.exceptions import UserErrorException, WebserviceException

from mnist_deploy.sdk import Deadline, DeadlineExceeded, not_registered, reason


def test_call_returns_the_result_or_raises_the_exception_of_the_function():
    assert Deadline(10).call(divmod, 17, 5) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        Deadline(10).call(divmod, 17, 0)
    with pytest.raises(TimeoutError, match="of the function"):
        Deadline(10).call(raise_, TimeoutError("of the function"))


def raise_(error: BaseException):
    raise error


def test_call_that_does_not_complete_raises_deadline_exceeded():
    never = threading.Event()
    deadline, began = Deadline(0.3), time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
        deadline.call(never.wait)
    assert 0.3 <= time.monotonic() - began < 5
    assert deadline.remaining() == 0
    with pytest.raises(DeadlineExceeded):  # for the second call as well
        deadline.call(never.wait)
    never.set()


def test_on_tick_is_called_during_a_call():
    ticks, enough = [], threading.Event()
    deadline = Deadline(30)

    def tick():
        ticks.append(deadline.remaining())
        enough.set()

    deadline.on_tick = tick
    assert deadline.call(enough.wait, 20)
    assert len(ticks) == 1


def test_ctrl_c_interrupts_a_call(interruptible):
    """In a child process, which a signal interrupts as a terminal would."""
    program = (
        "import threading, signal, os\n"
        "from mnist_deploy.sdk import Deadline\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "Deadline(60).call(threading.Event().wait)\n"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert b"KeyboardInterrupt" in ended.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserErrorException("You don't have access"), "You don't have access."),
        (
            WebserviceException(
                "Received bad response from Model Management Service:\nResponse Code: 400\n"
                'Headers: {\'Date\': \'today\'}\nContent: b\'{"code":"Bad","message":'
                "\"memoryInGB can\\'t be 0\"}\\n'"
            ),
            "memoryInGB can't be 0.",
        ),
        (Exception('Code: 404\n: {"error":{"message":"a \\"quoted\\" name"}}'), 'a "quoted" name.'),
        (
            Exception('Code: 500\n: {"message": "broken \\u00e9'),
            'Code: 500 : {"message": "broken \\u00e9.',
        ),
        (Exception('{"message": "unescaped\n\tby the SDK"}'), "unescaped by the SDK."),
        (Exception('{"message": "in C:\\dir, unescaped"}'), "in C:\\dir, unescaped."),
        (
            WebserviceException(
                'Error:\n{\n  "message": "It did not start.\nTraceback (most recent call last):\n'
                '  File "score.py", line 2, in init\n    raise ValueError("no "digit" here")\n'
                'ValueError: no "digit" here",\n  "statusCode": 500\n}'
            ),
            'It did not start. ValueError: no "digit" here.',
        ),
        (ValueError("two\n   lines"), "two lines."),
        (ValueError("Is that so?"), "Is that so?"),
        (ValueError(), "ValueError."),
        (
            requests.HTTPError("403 for url: https://x.blob/a.pkl?sv=1&sig=S3CRET&se=2 (end)"),
            "403 for url: https://x.blob/a.pkl (end).",
        ),
        (
            Exception(
                "HTTPSConnection(host='127.0.0.1', port=9): Failed to establish a new connection: "
                "[Errno 111] Connection refused"
            ),
            "127.0.0.1:9 cannot be reached (Connection refused); connect to the workspace again.",
        ),
    ],
)
def test_reason_is_one_readable_line(error, message):
    assert reason(error) == message


def test_reason_names_host_and_port_of_a_failed_connection():
    with pytest.raises(requests.ConnectionError) as raised:
        requests.get("http://127.0.0.1:1/a?sig=S3CRET", timeout=5)
    cause = "127.0.0.1:1 cannot be reached (Connection refused)"
    assert reason(raised.value) == f"{cause}; connect to the workspace again."


def test_sdk_logs_to_stderr_only_if_logging_is_configured(capfd):
    program = (
        "import logging, mnist_deploy.sdk\nmnist_deploy.sdk.Deadline().call(int)\n"
        "logging.getLogger('azureml._file_utils').warning('details of an error')\n"
        "logging.basicConfig(level='INFO', format='configured: %(message)s')\n"
        "logging.getLogger('azureml._file_utils').warning('details of an error')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr == "configured: details of an error\n"


def test_import_of_sdk_attaches_no_log_handlers():
    program = "import logging, mnist_deploy.sdk; print(logging.getLogger('azureml').handlers)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n"


def test_not_registered_lists_ten_names_at_most():
    ws, names = SimpleNamespace(name="w"), [f"m{i:02}:1" for i in range(14)]
    message = not_registered(ws, "model 'm'", None, names)
    assert message.startswith(
        "Model 'm' is not registered in workspace 'w'. Registered are: m00:1, "
    )
    assert f"{', '.join(names[:10])} and 4 more. prepare_workspace(ws)" in message
    message = not_registered(ws, "model 'm'", 3, [])
    assert message.startswith("Version 3 of model 'm' is not registered in workspace 'w'.")
    assert "Registered are: none." in message
