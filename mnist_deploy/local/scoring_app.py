"""What runs in a container's process: Microsoft's inference server behind a key check.

Started as ``python -m mnist_deploy.local.scoring_app`` with the listening socket, the
read end of a pipe that closes when the control plane is gone, and the write end of one
that tells it when the script's ``init()`` has returned.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from . import aliases

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

BODY_LIMIT = 256 << 20  # bytes
SILENCE_LIMIT = 30  # seconds
WORKER_LIMIT = 300  # seconds: how long Microsoft's server leaves a worker alone


class KeyCheck:
    """Lets a request through if it carries one of the service's keys, or if keys are off.

    Parameters
    ----------
    app : WSGI callable
    keys_file : Path
        JSON: a list of keys, or null where keys are off. Read again when it changes,
        so that a regenerated key counts at once.
    """

    def __init__(self, app: WsgiApp, keys_file: Path) -> None:
        self._app = app
        self._keys_file = keys_file
        self._read: tuple[int, int] | None = None
        self._keys: list[bytes] | None = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/" or self._is_allowed(environ.get("HTTP_AUTHORIZATION", "")):
            return self._app(environ, start_response)
        return refuse(
            start_response,
            "401 Unauthorized",
            "This service asks for a key: send the header 'Authorization: Bearer <key>' with "
            "the primary or secondary key, which service.get_keys() returns.",
        )

    def _is_allowed(self, authorization: str) -> bool:
        status = os.stat(self._keys_file)
        if (status.st_mtime_ns, status.st_ino) != self._read:
            keys = json.loads(self._keys_file.read_bytes())
            self._keys = None if keys is None else [key.encode() for key in keys]
            self._read = status.st_mtime_ns, status.st_ino
        if self._keys is None:
            return True
        offered = authorization.removeprefix("Bearer ").encode("latin-1")
        # Every key is compared, whatever the first comparison gave.
        return any([hmac.compare_digest(offered, key) for key in self._keys])


class WholeBody:
    """Lets a request through when its body has arrived: a slow sender keeps nobody waiting.

    It comes before the key check, because who is refused while still sending would see a
    broken connection instead of the reason.
    """

    def __init__(self, app: WsgiApp) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"] = BytesIO(read_body(environ))
        except OverflowError as error:
            return refuse(start_response, "413 Content Too Large", str(error))
        except TimeoutError as error:
            return refuse(start_response, "408 Request Timeout", str(error))
        return self._app(environ, start_response)


class Turnstile:
    """Gives the script one request at a time, and no longer than the scoring time-out.

    Microsoft's server runs a script in a single thread and times it out by a signal. gunicorn's
    threaded worker keeps connections open, but its threads know no signals: when the time is
    up, the caller gets the answer that Microsoft's server would have given, and the worker is
    ended and started anew.
    """

    def __init__(self, app: WsgiApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._turn = threading.Lock()
        self._answering = threading.Lock()  # held by who may answer: the script, or the watch
        self._running: tuple[float, Any] | None = None

    def watch(self) -> None:
        threading.Thread(target=self._watch, daemon=True, name="deadline").start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with self._turn:
            self._running = time.monotonic(), environ.get("gunicorn.socket")
            try:
                return self._app(environ, start_response)
            finally:
                with self._answering:
                    self._running = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(0.25, self._seconds / 4))
            with self._answering:
                running = self._running
                if running is not None and time.monotonic() - running[0] > self._seconds:
                    self._give_up(running[1])

    def _give_up(self, socket: Any) -> None:
        message = f"Scoring timeout after {self._seconds * 1000:.0f} ms"
        print(f"{message}: run() did not return; the worker is restarted.", flush=True)
        body = json.dumps({"message": message}).encode()
        head = (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
            "Connection: close\r\nx-ms-run-function-failed: True\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            socket.sendall(head.encode() + body)
        finally:
            os._exit(1)


def read_body(environ: Environ) -> bytes:
    """The request's whole body.

    Raises
    ------
    OverflowError
        If it is larger than `BODY_LIMIT`.
    TimeoutError
        If its sender is silent for `SILENCE_LIMIT` seconds.
    """
    socket = environ.get("gunicorn.socket")
    announced = environ.get("CONTENT_LENGTH") or ""
    if announced.isdigit() and int(announced) > BODY_LIMIT:
        raise OverflowError(f"The body is larger than {BODY_LIMIT} bytes. Send smaller batches.")
    if socket is not None:
        socket.settimeout(SILENCE_LIMIT)
    try:
        body = environ["wsgi.input"].read(BODY_LIMIT + 1)
    except TimeoutError:
        raise TimeoutError(f"The rest of the body did not come in {SILENCE_LIMIT} s.") from None
    if socket is not None:
        socket.settimeout(None)
    if len(body) > BODY_LIMIT:
        raise OverflowError(f"The body is larger than {BODY_LIMIT} bytes. Send smaller batches.")
    return body


def refuse(start_response: StartResponse, status: str, message: str) -> list[bytes]:
    body = json.dumps({"message": message}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


class ScoringServer(BaseApplication):
    """gunicorn on a socket that the control plane opened, with workers as the cores allow."""

    def __init__(self, *, socket_fd: int, ready_fd: int, workers: int, keys_file: Path) -> None:
        self._options = {
            "bind": f"fd://{socket_fd}",
            "workers": workers,
            "worker_class": "gthread",
            "threads": 8,
            "keepalive": 60,
            "timeout": WORKER_LIMIT,
            "graceful_timeout": 5,
            "post_fork": lambda arbiter, worker: exit_with_control_plane(),
            "post_worker_init": lambda worker: tell_ready(ready_fd),
            "control_socket_disable": True,
        }
        self._keys_file = keys_file
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> WsgiApp:
        aliases.install()  # for scripts and models of 2018
        from azureml_inference_server_http.server.config import config
        from azureml_inference_server_http.server.entry import app

        turnstile = Turnstile(app, min(config.scoring_timeout / 1000, WORKER_LIMIT))
        turnstile.watch()
        return WholeBody(KeyCheck(turnstile, self._keys_file))


def tell_ready(ready_fd: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # a later worker's: nobody waits for it
        os.write(ready_fd, b"ready\n")


def exit_with_control_plane() -> None:
    """End when standard input is closed at its other end, and with us all that we started.

    However busy the script may be: a thread waits, and no signal can be held back.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


def main() -> None:
    socket_fd, ready_fd, workers, keys_file = sys.argv[1:]
    exit_with_control_plane()
    # As on Azure, the folder of scripts comes last: Microsoft's server appends it.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd()]
    os.chdir(os.environ["AML_APP_ROOT"])
    sys.argv = sys.argv[:1]
    ScoringServer(
        socket_fd=int(socket_fd),
        ready_fd=int(ready_fd),
        workers=int(workers),
        keys_file=Path(keys_file),
    ).run()


if __name__ == "__main__":
    main()
