"""What stands between a request and the script: its whole body, a key, one at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from io import BytesIO

import pytest

from mnist_deploy.local.scoring import middleware
from mnist_deploy.local.scoring.middleware import KeyCheck, Turnstile, WholeBody


def echo(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def ask(app, *, path="/score", body=b"", **environ) -> tuple[int, bytes]:
    statuses = []
    request = {"PATH_INFO": path, "wsgi.input": BytesIO(body), **environ}
    answer = app(request, lambda status, headers: statuses.append(int(status[:3])))
    return statuses[0], b"".join(answer)


@pytest.fixture
def keyed(tmp_path):
    file = tmp_path / "keys.json"

    def write(keys):
        file.write_text(json.dumps(keys))
        return KeyCheck(echo, file)

    return write


def test_with_a_key_it_is_let_through(keyed):
    app = keyed(["first", "second"])
    assert ask(app, body=b"x", HTTP_AUTHORIZATION="Bearer first") == (200, b"x")
    assert ask(app, body=b"x", HTTP_AUTHORIZATION="Bearer second") == (200, b"x")


@pytest.mark.parametrize(
    "offered", ["", "Bearer", "Bearer ", "Bearer firs", "Bearer first ", "Bearer \xe9", "Basic x"]
)
def test_without_one_it_is_refused_with_what_to_do(keyed, offered):
    status, answer = ask(keyed(["first"]), HTTP_AUTHORIZATION=offered)
    assert status == 401
    assert "get_keys()" in json.loads(answer)["message"]
    assert b"first" not in answer


def test_an_empty_list_of_keys_lets_nobody_in(keyed):
    assert ask(keyed([]), HTTP_AUTHORIZATION="Bearer ")[0] == 401


def test_the_health_check_needs_no_key(keyed):
    assert ask(keyed(["first"]), path="/")[0] == 200
    assert ask(keyed(["first"]), path="//")[0] == 401


def test_keys_that_changed_count_at_once(keyed, tmp_path):
    app = keyed(["first"])
    assert ask(app, HTTP_AUTHORIZATION="Bearer first")[0] == 200
    (tmp_path / "new").write_text(json.dumps(["second"]))
    os.replace(tmp_path / "new", tmp_path / "keys.json")
    assert ask(app, HTTP_AUTHORIZATION="Bearer first")[0] == 401
    assert ask(app, HTTP_AUTHORIZATION="Bearer second")[0] == 200


def test_without_a_file_of_keys_nobody_comes_in(tmp_path):
    with pytest.raises(FileNotFoundError):
        ask(KeyCheck(echo, tmp_path / "nowhere"))


def test_a_body_is_whole(monkeypatch):
    monkeypatch.setattr(middleware, "BODY_LIMIT", 10)
    assert ask(WholeBody(echo), body=b"0123456789") == (200, b"0123456789")


@pytest.mark.parametrize("announced", ["11", ""])
def test_a_body_beyond_the_limit_is_refused(monkeypatch, announced):
    monkeypatch.setattr(middleware, "BODY_LIMIT", 10)
    status, answer = ask(WholeBody(echo), body=b"x" * 11, CONTENT_LENGTH=announced)
    assert status == 413
    assert "10 bytes" in json.loads(answer)["message"]


def test_a_sender_that_falls_silent_is_refused(monkeypatch):
    monkeypatch.setattr(middleware, "SILENCE_LIMIT", 0.1)
    here, there = socket.socketpair()
    there.sendall(b"the beginning")
    with here, there:
        status, _ = ask(WholeBody(echo), **{"wsgi.input": here.makefile("rb"),
                                            "gunicorn.socket": here})  # fmt: skip
    assert status == 408


def test_one_at_a_time():
    inside, most = [], []

    def slow(environ, start_response):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return echo(environ, start_response)

    turnstile = Turnstile(slow, 60)
    threads = [threading.Thread(target=ask, args=(turnstile,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_a_script_that_raises_lets_the_next_one_in():
    def fails(environ, start_response):
        raise LookupError

    turnstile = Turnstile(fails, 60)
    for _ in range(2):
        with pytest.raises(LookupError):
            ask(turnstile)


OVERTIME = """
import socket, sys, time
from mnist_deploy.local.scoring.middleware import Turnstile

def never(environ, start_response):
    time.sleep(60)

turnstile = Turnstile(never, 0.2)
turnstile.watch()
turnstile({"gunicorn.socket": socket.socket(fileno=int(sys.argv[1]))}, None)
"""


def test_who_takes_too_long_is_answered_for_and_ended():
    here, there = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", OVERTIME, str(there.fileno())],
        pass_fds=[there.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    )
    there.close()
    output, _ = process.communicate(timeout=20)
    with here:
        answer = here.makefile("rb").read()
    assert process.returncode == 1
    assert b"500 Internal Server Error" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"].startswith("Scoring timeout")
    assert "the worker is restarted" in output
