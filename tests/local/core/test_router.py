"""The router, as a process of its own before deployments that are pretended by this one."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from aiohttp import web
from weights_service import until

from mnist_deploy.local.core.router import BODY_LIMIT


class Deployments:
    """``blue`` and ``green``, which answer with their name, and what reached them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="router"))
        self.seen: dict[str, list[web.Request]] = {"blue": [], "green": []}
        self.bodies: dict[str, list[int]] = {"blue": [], "green": []}
        self.gate = threading.Event()  # requests to /slow wait for it
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        for name in self.seen:
            asyncio.run_coroutine_threadsafe(self._serve(name), self.loop).result()

    async def _serve(self, name: str) -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            self.seen[name].append(request)
            size = 0
            with contextlib.suppress(ConnectionResetError):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
            self.bodies[name].append(size)
            while request.path == "/slow" and not self.gate.is_set():
                await asyncio.sleep(0.01)
            if request.path == "/cut-off":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"half")
                request.transport.abort()
                return response
            return web.json_response({"name": name, "size": size}, status=207)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.UnixSite(runner, str(self.folder / name)).start()

    def targets(self, **more: dict) -> dict:
        return {name: {"socket": str(self.folder / name), **more[name]} for name in more}


class Router:
    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnist_deploy.local.core.router", str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        self.listener = listener
        self.number = 0

    def send(self, **routes) -> None:
        self.number += 1
        line = json.dumps({"number": self.number, **routes})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{self.number}\n".encode()

    def ask(self, path="/score", body=b"{}", **headers) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(self.url + path, body, headers=headers, timeout=10)


@pytest.fixture(scope="module")
def deployments():
    return Deployments()


@pytest.fixture(scope="module")
def shared():
    router = Router()
    yield router
    router.process.stdin.close()
    assert router.process.wait(5) == 0
    router.process.stdout.close()
    router.listener.close()


@pytest.fixture
def router(shared, deployments):
    """With blue alone, and nothing that an earlier test has left."""
    shared.send(targets=deployments.targets(blue={"share": 100}))
    deployments.gate.clear()
    for lists in (deployments.seen, deployments.bodies):
        for each in lists.values():
            each.clear()
    return shared


def test_shares_are_kept(router, deployments):
    router.send(targets=deployments.targets(blue={"share": 70}, green={"share": 30}))
    connection, counts = http.client.HTTPConnection(*router.listener.getsockname()), Counter()
    for _ in range(1000):
        connection.request("POST", "/score", b"{}")
        counts[json.loads(connection.getresponse().read())["name"]] += 1
    connection.close()
    assert abs(counts["blue"] - 700) < 3 * math.sqrt(1000 * 0.7 * 0.3)


def test_a_deployment_can_be_asked_for_by_name(router, deployments):
    router.send(targets=deployments.targets(blue={"share": 100}, green={}))
    answer = router.ask(azureml_model_deployment="green")
    assert (answer.status_code, answer.json()["name"]) == (207, "green")
    assert answer.headers["azureml-model-deployment"] == "green"
    assert router.ask().json()["name"] == "blue"
    missing = router.ask(azureml_model_deployment="red")
    assert (missing.status_code, "There is: blue, green." in missing.text) == (404, True)
    router.send(targets=deployments.targets(green={}))
    assert (router.ask().status_code, "traffic" in router.ask().text) == (404, True)


def test_what_is_passed_on(router, deployments):
    answer = router.ask("/score?verbose=true&x=%2F", b"abc", X_Mine="1", Connection="close")
    [request] = deployments.seen["blue"]
    assert request.raw_path == "/score?verbose=true&x=%2F"
    assert (request.headers["X-Mine"], request.headers["Content-Length"]) == ("1", "3")
    assert (answer.status_code, answer.json()["size"]) == (207, 3)
    router.ask(body=iter([b"a" * 70_000, b"b" * 70_000]))
    router.ask(body=b"")
    assert requests.get(f"{router.url}/swagger.json", timeout=10).status_code == 207
    assert deployments.bodies["blue"] == [3, 140_000, 0, 0]


def test_keys_and_tokens_are_asked_for_before_the_body_is_read(router, deployments):
    later, earlier = time.time() + 100, time.time() - 1
    router.send(
        targets=deployments.targets(blue={"share": 100}),
        keys=["one", "two"],
        tokens={"lasting": later, "ended": earlier},
    )
    statuses = [
        router.ask(Authorization=header).status_code
        for header in ("Bearer one", "bearer two", "Bearer lasting", "Bearer ended", "Bearer x",
                       "one", "", b"Bearer \xe9")
    ]  # fmt: skip
    assert statuses == [207, 207, 207, 401, 401, 401, 401, 401]
    assert requests.get(router.url, timeout=10).status_code == 207  # whether it lives
    with socket.create_connection(router.listener.getsockname(), timeout=5) as connection:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_LIMIT}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401")
    assert len(deployments.seen["blue"]) == 4


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(router, announced):
    with socket.create_connection(router.listener.getsockname(), timeout=30) as connection:
        length = f"Content-Length: {BODY_LIMIT + 1}" if announced else "Transfer-Encoding: chunked"
        connection.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        if not announced:
            chunk = b"400000\r\n" + bytes(4 << 20) + b"\r\n"
            with contextlib.suppress(ConnectionError):
                for _ in range((BODY_LIMIT >> 22) + 1):
                    connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_where_nobody_answers_it_says_why_and_who_waits_is_told_too(router, deployments):
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(router.ask, "/slow") for _ in range(4)]
        until(lambda: len(deployments.seen["blue"]) == 4)
        closed = {"share": 100, "problem": "init() raised"}
        router.send(targets=deployments.targets(blue=closed), closed=502)
        answers = [each.result() for each in waiting] + [router.ask()]
    assert {(each.status_code, each.json()["message"]) for each in answers} == {
        (502, "init() raised")
    }


def test_a_deployment_whose_process_dies_meanwhile(router, deployments):
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        router.ask("/cut-off")  # half an answer is not taken for a whole one
    router.send(targets={"blue": {"socket": "/no/such/socket", "share": 100}})
    assert (router.ask().status_code, "blue did not answer" in router.ask().text) == (502, True)


def test_copies_are_sent_and_delay_nothing(router, deployments):
    both = deployments.targets(blue={"share": 100}, green={"mirror": 100})
    router.send(targets=both)
    for body in (b"x" * 1_000_000, b"", iter([b"a", b"b"])):
        assert router.ask(body=body).json()["name"] == "blue"
    router.ask(azureml_model_deployment="blue")  # who asks for one by name is not copied
    until(lambda: sorted(deployments.bodies["green"]) == [2, 1_000_000])
    answers = [router.ask("/slow-copy" if n else "/score", b"y") for n in range(3)]
    assert all(each.json()["name"] == "blue" for each in answers)
    router.send(targets=both | {"green": {"socket": "/no/such/socket", "mirror": 100}})
    assert router.ask().json()["name"] == "blue"


def test_who_sends_nothing_or_little_keeps_nobody_waiting(router):
    begun = b"POST /score HTTP/1.1\r\nHost: x\r\n"
    silent = [socket.create_connection(router.listener.getsockname()) for _ in range(150)]
    for number, connection in enumerate(silent):
        connection.sendall(begun[:9] if number % 2 else begun + b"Content-Length: 9\r\n\r\nx")
    began = time.monotonic()
    assert router.ask().status_code == 207
    assert time.monotonic() - began < 1
    for connection in silent:
        connection.close()


def test_at_its_end_it_answers_what_was_begun(deployments):
    router = Router()
    router.send(targets=deployments.targets(blue={"share": 100}))
    deployments.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        begun = len(deployments.seen["blue"])
        waiting = pool.submit(router.ask, "/slow")
        until(lambda: len(deployments.seen["blue"]) > begun)
        kept = http.client.HTTPConnection(*router.listener.getsockname())
        kept.connect()
        router.process.terminate()
        time.sleep(0.1)
        kept.request("POST", "/score", b"{}")
        last = kept.getresponse()
        assert (last.status, last.headers["Connection"]) == (207, "close")
        kept.close()
        deployments.gate.set()
        assert waiting.result().status_code == 207
    assert router.process.wait(5) == 0
    with socket.create_connection(router.listener.getsockname()):  # for whoever is next
        router.listener.settimeout(5)
        router.listener.accept()[0].close()
    for each in (router.listener, router.process.stdin, router.process.stdout):
        each.close()
