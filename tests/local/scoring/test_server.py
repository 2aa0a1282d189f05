"""The scoring server beside Microsoft's own: the same requests get the same answers."""

from __future__ import annotations

import http.client
import io
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from polling import PATIENCE, wait_until

from mnist_deploy.local.core.container import ProcessContainer

SCRIPT = """
import asyncio, builtins, ctypes, hashlib, os, time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

mutex = ctypes.create_string_buffer(64)

def init(): pass

async def later(): return "from a loop"

@rawhttp
def run(request):
    match request.args.get("do"):
        case "fail": raise LookupError("on purpose")
        case "SystemExit" | "KeyboardInterrupt" | "GeneratorExit" as kind:
            raise getattr(builtins, kind)("on purpose")
        case "CancelledError": raise asyncio.CancelledError
        case "sleep": time.sleep(30)
        case "spin":
            while True: pass
        case "stuck" if os.name == "nt": ctypes.PyDLL("kernel32").Sleep(1_000_000)
        case "stuck":  # in a lock that no signal ends, and with the interpreter's
            for _ in range(2): ctypes.PyDLL(None).pthread_mutex_lock(mutex)
        case "loop": return asyncio.run(later())
        case "stream": return AMLResponse((f"piece {n}," for n in range(3)), 200)
        case "break":
            return AMLResponse((1 / (2 - n) and f"{n}," for n in range(3)), 200)
        case "known": return AMLResponse((x for x in "abc"), 200, {"Content-Length": "3"})
        case "empty": return AMLResponse((x for x in ["", "", "a", ""]), 200)
        case "bytes":
            return AMLResponse(bytes(range(256)) * 999, 200, {"X-A": "1,2", "X-b": "\\xe9"})
        case "204" | "304" | "418" | "503" as status:
            return AMLResponse("" if status < "400" else "odd", int(status))
    body = request.get_data()
    return {
        "body": [len(body), hashlib.sha256(body).hexdigest()],
        "seen": [request.method, request.full_path, request.url, request.content_length],
        "args": list(request.args.lists()),
        "headers": sorted((k, v) for k, v in request.headers if k not in ("Connection", "Upgrade")),
        "environ": [request.environ[name] for name in
                    ("SERVER_PROTOCOL", "REMOTE_ADDR", "SERVER_NAME", "SCRIPT_NAME",
                     "QUERY_STRING", "PATH_INFO", "wsgi.url_scheme", "wsgi.input_terminated")],
    }
"""
VARIABLES = {
    "AZUREML_ENTRY_SCRIPT": "score.py",
    "SCORING_TIMEOUT_MS": "400",
    "AML_CORS_ORIGINS": "https://page.example",
    "HTTP_X_MS_SERVER_VERSION": "azmlinfsrv/1",
}
POST = "POST /score HTTP/1.1\r\nHost: a.example\r\n"
GET = "GET /score?do={} HTTP/1.1\r\nHost: a.example\r\n\r\n"

SAME = {
    "a body of known length": POST + "Content-Length: 5\r\nContent-Type: a/b; c=d\r\n\r\nhello",
    "no body": POST + "\r\n",
    "chunks": POST + "Transfer-Encoding: chunked\r\n\r\n"
    "5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-T: y\r\n\r\n",
    "100-continue expected": POST + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.0": "POST /score HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.0 that stays": "GET /score HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "arguments": "GET /score?a=1&a=%C3%A9&b=%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "an escaped path": "GET /sc%6Fre?x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a whole URL": "GET http://b.example/score?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "odd headers": POST + "A_b: dropped\r\nA-b: kept\r\nX-y: 1\r\nx-Y: 2\r\nZ: caf\xe9\r\n\r\n",
    "another protocol": POST + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    "ids": POST + "x-request-id: one\r\nx-ms-client-request-id: two\r\nTraceId: three\r\n\r\n",
    "an id too long": POST + f"x-request-id: {'x' * 101}\r\n\r\n",
    "HEAD": "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "health": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no such path": "GET /nowhere?x HTTP/1.1\r\nHost: a\r\n\r\n",
    "no such method": "PUT /score HTTP/1.1\r\nHost: a\r\n\r\n",
    "swagger": "GET /swagger.json HTTP/1.1\r\nHost: a\r\n\r\n",
    "swagger 9": "GET /swagger.json?version=9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CORS": POST + "Origin: https://page.example\r\nContent-Length: 2\r\n\r\nhi",
    "CORS before a request": "OPTIONS /score HTTP/1.1\r\nHost: a\r\nOrigin: https://page.example\r\n"
    "Access-Control-Request-Method: POST\r\n\r\n",
    **{f"run: {what}": GET.format(what) for what in
       ("fail", "sleep", "loop", "stream", "known", "empty", "bytes", "204", "304", "418", "503")},
    "run: stream, HTTP/1.0": "GET /score?do=stream HTTP/1.0\r\n\r\n",
}  # fmt: skip
MALFORMED = {
    "no HTTP": "hello there\r\n\r\n",
    "no such version": "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    "a header without a name": "GET / HTTP/1.1\r\n: x\r\n\r\n",
    "a header with a space": "GET / HTTP/1.1\r\nA : x\r\n\r\n",
    "two lengths": POST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
    "an odd length": POST + "Content-Length: -1\r\n\r\n",
    "length and chunks": POST + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    (folder / "app").mkdir()
    (folder / "app" / "score.py").write_text(SCRIPT)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        container = ProcessContainer(
            folder, listener, cpu_cores=1, memory_gb=0.5, environment=VARIABLES
        )
        assert container.start() is None, container.log_tail(50)
        yield listener.getsockname()
        container.stop()


@pytest.fixture(scope="module")
def microsofts(folder):
    """Microsoft's ``azmlinfsrv``, on the loopback only."""
    if sys.platform == "win32":
        pytest.skip("Microsoft's server runs in gunicorn, which needs POSIX")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    program = f"from azureml_inference_server_http import amlserver_linux as server\n" \
              f"server.run('127.0.0.1', {address[1]}, 1)"  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **VARIABLES, "AML_APP_ROOT": str(folder / "app")},
        cwd=folder / "app",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def is_up() -> bool:
        with socket.socket() as client:
            return client.connect_ex(address) == 0

    try:
        wait_until(is_up, 30)
        yield address
    finally:
        process.terminate()
        process.wait(30)


class Received(io.BytesIO):
    """Bytes, as `http.client` wants them."""

    def makefile(self, mode: str) -> Received:
        return self

    def close(self) -> None:
        """The next answer is read from it too."""


def talk(address, *sent: str) -> bytes:
    """The bytes that are received after these parts and the end of the stream were sent."""
    with socket.create_connection(address, timeout=20 * PATIENCE) as client:
        for part in sent:
            client.sendall(part.encode("latin-1"))
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def answers(received: bytes, method: str = "GET") -> list[tuple[int, dict[str, list[str]], bytes]]:
    """Status, headers and body of each answer."""
    stream, found = Received(received), []
    while stream.tell() < len(received):
        answer = http.client.HTTPResponse(stream, method=method)
        answer.begin()
        headers = {name.lower(): answer.headers.get_all(name) for name in answer.headers}
        found.append((answer.status, headers, answer.read()))
    return found


def of_interest(answer: tuple[int, dict[str, list[str]], bytes], request: str):
    status, headers, body = answer
    for name in ("server", "date", "connection"):
        headers.pop(name, None)
    for name in ("x-ms-run-fn-exec-ms", *(() if "request-id" in request else
                                          ("x-request-id", "x-ms-request-id"))):  # fmt: skip
        headers[name] = ["any"] if name in headers else ["none"]
    return status, headers, body


@pytest.mark.parametrize("name", SAME)
def test_answer_is_that_of_microsofts_server(ours, microsofts, name):
    request = SAME[name]
    method = request.split()[0]
    here, there = talk(ours, request), talk(microsofts, request)
    assert here.startswith(b"HTTP/1.1 100 Continue") == there.startswith(b"HTTP/1.1 100 Continue")
    [mine], [its] = answers(here, method), answers(there, method)
    assert of_interest(mine, request) == of_interest(its, request)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_is_rejected_as_by_microsofts_server(ours, microsofts, name):
    statuses = [int(talk(each, MALFORMED[name])[9:12]) for each in (ours, microsofts)]
    assert [status // 100 for status in statuses] == [4, 4] or statuses == [400, 501], statuses


def seen(received: bytes, method: str = "GET") -> list[tuple[int, str]]:
    """Status and text of each answer."""
    return [(status, body.decode()) for status, _, body in answers(received, method)]


def test_pipelined_requests_are_answered_in_order(ours):
    large = POST + f"Content-Length: {1 << 30}\r\n\r\n"
    received = talk(ours, GET.format("418") + POST + "Content-Length: 2\r\n\r\nhi" +
                    GET.format("204"), GET.format("loop"), large)  # fmt: skip
    statuses = [status for status, _ in seen(received)]
    assert statuses == [418, 200, 204, 200, 413]
    assert b'"from a loop"' in received


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (POST + "Content-Length: 9\r\n\r\nhello", 400, "could not be read to its end"),
        (POST + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 400, "to its end"),
        (POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhel", 400, "to its end"),
        (POST, 400, "to its end"),
        (POST + f"X: {'x' * 70_000}\r\n\r\n", 431, "larger than 65536 bytes"),
        (POST + "X: x\r\n" * 20_000 + "\r\n", 431, "larger than 65536 bytes"),
        (POST + f"X: {'x' * 2_000_000}", 431, "larger than 65536 bytes"),
        (POST + f"Content-Length: {1 << 30}\r\n\r\n", 413, "larger than 134217728 bytes"),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", 405, "not a proxy"),
    ],
)
def test_unreadable_request_is_answered_with_the_reason(ours, request_, status, message):
    [(got, body)] = seen(talk(ours, request_))
    assert (got, message in json.loads(body)["message"]) == (status, True)


def test_interrupted_answer_is_recognized_as_incomplete(ours):
    with pytest.raises(http.client.IncompleteRead):
        answers(talk(ours, GET.format("break")))


def test_body_above_the_limit_is_rejected_and_read_to_its_end(ours):
    with socket.create_connection(ours, timeout=20 * PATIENCE) as client:
        client.sendall((POST + "Transfer-Encoding: chunked\r\n\r\n").encode())
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(130):
            client.sendall(chunk)
        client.sendall(b"0\r\n\r\n" + GET.format("418").encode())
        client.shutdown(socket.SHUT_WR)
        assert [status for status, _ in seen(client.makefile("rb").read())] == [413, 418]


def test_connection_stays_open_between_requests(ours):
    client = http.client.HTTPConnection(*ours, timeout=20 * PATIENCE)
    client.connect()
    client.auto_open = 0
    for what, status in (("418", 418), ("loop", 200), ("stream", 200), ("fail", 500)):
        client.request("GET", f"/score?do={what}", headers={"Host": "a"})
        answer = client.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
    client.close()


@pytest.mark.parametrize(
    "kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"]
)
def test_base_exception_of_a_script_is_500_and_keeps_connection_and_process(ours, kind):
    received = talk(ours, GET.format(kind), GET.format("418"))
    assert [status for status, _ in seen(received)] == [500, 418]
    assert b"x-ms-run-function-failed: True" in received


def test_clients_that_leave_early_disturb_no_other_client(ours):
    with socket.create_connection(ours) as busy:
        busy.sendall(GET.format("sleep").encode())
        for number in range(9):  # while it is busy
            with socket.create_connection(ours) as client:
                client.sendall((number % 2 + 1) * GET.format("418").encode())
                if number % 3 == 0:  # a reset, and not the end of what it sends
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert busy.recv(100).startswith(b"HTTP/1.1 500 ")
    assert [status for status, _ in seen(talk(ours, GET.format("418")))] == [418]


def test_rejected_request_does_not_wait_in_the_queue(ours):
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(ours)) for _ in range(5)]
        for client in clients:  # all are accepted, and the script has been quick
            client.sendall(GET.format("418").encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 418 ")
        *waiting, rejected = clients
        for client in waiting:
            client.sendall(GET.format("sleep").encode())
        rejected.sendall((POST + f"Content-Length: {1 << 30}\r\n\r\n").encode())
        assert rejected.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert len(select.select(waiting, [], [], 0)[0]) < len(waiting)
        assert all(client.recv(1000).startswith(b"HTTP/1.1 500 ") for client in waiting)


def test_endless_loop_is_interrupted_by_the_scoring_timeout(ours):
    received = talk(ours, GET.format("spin"), GET.format("418"))
    (status, body), (next_status, _) = seen(received)
    assert (status, "Scoring timeout after 400 ms" in body, next_status) == (500, True, 418)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "darwin", reason="that lock is Linux's or Windows's")
def test_process_that_hangs_in_c_code_is_ended_and_logs_where(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        container = ProcessContainer(
            folder, listener, cpu_cores=1, memory_gb=0.5, environment=VARIABLES
        )
        container.start()
        began = time.monotonic()
        assert talk(listener.getsockname(), GET.format("stuck")) == b""
        assert time.monotonic() - began < 10 * PATIENCE
        assert [status for status, _ in seen(talk(listener.getsockname(), GET.format("418")))]
        log = container.log_tail(100)
        container.stop()
    assert 'score.py", line' in log
    assert "it ended with exit status 1" in log
