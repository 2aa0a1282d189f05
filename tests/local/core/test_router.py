"""The router, as a process of its own before deployments that the test pretends to be."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import pytest
import requests
from polling import wait_until

from mnist_deploy.local.authorization import hash_token
from mnist_deploy.local.core.router import MAX_BODY
from mnist_deploy.local.host import networking, processes
from mnist_deploy.local.platforms import PLATFORMS

RUN_FAILED = {"x-ms-run-function-failed": "True"}


class Deployments:
    """``blue`` and ``green``, which answer with their names, and the requests they have got."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.seen: dict[str, list[BaseHTTPRequestHandler]] = {"blue": [], "green": []}
        self.bodies: dict[str, list[int]] = {"blue": [], "green": []}
        self.gate = threading.Event()  # requests to /slow wait for it
        self.servers = [self._serve(name) for name in self.seen]

    def _serve(self, name: str) -> ThreadingTCPServer:
        deployments = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one segment: the second would await an acknowledgment

            def answer(self) -> None:
                deployments.seen[name].append(self)
                size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                deployments.bodies[name].append(size)
                if self.path == "/slow":
                    deployments.gate.wait(20)
                if self.path == "/cut-off":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                    self.close_connection = True
                    return
                kind, _, status = self.path[1:].partition("/")
                status = int(status) if kind in ("raised", "chosen") else 200
                self.send_response(status)
                for header in RUN_FAILED.items() if kind == "raised" else ():
                    self.send_header(*header)
                self._body(kind, json.dumps({"name": name, "size": size}).encode(), status)

            def _body(self, kind: str, body: bytes, status: int) -> None:
                if kind == "chunks":
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                elif status == 204:
                    self.end_headers()
                else:
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

            do_GET = do_POST = do_HEAD = answer

            def log_message(self, *_) -> None:
                pass

            def address_string(self) -> str:
                return ""

        class Server(ThreadingTCPServer):
            daemon_threads = True

            def handle_error(self, *_) -> None:
                """The router has closed the connection."""

        server = Server(("", 0), Handler, bind_and_activate=False)
        server.socket.close()
        folder = Path(networking.socket_folder())
        server.socket, self.addresses[name] = networking.listen_privately(folder)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def backends(self, **more: dict) -> dict:
        return {name: {"socket": self.addresses[name], **more[name]} for name in more}

    def close(self) -> None:
        for server, address in zip(self.servers, self.addresses.values(), strict=True):
            server.shutdown()
            networking.close_privately(server.socket, address)


class Router:
    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.control, its = socket.socketpair()
        with its:
            self.process = processes.start_child(
                "mnist_deploy.local.core.router", [], {"listener": listener, "control": its}
            )
        self.listener = listener
        self.answers = self.control.makefile("rb")
        self.number = 0

    def send(self, platform: str = "aci", **routes) -> None:
        self.number += 1
        line = json.dumps({"number": self.number, "platform": platform, **routes})
        self.control.sendall(line.encode() + b"\n")
        assert self.answers.readline() == f"{self.number}\n".encode()

    def ask(self, path="/score", body=b"{}", method="POST", **headers) -> requests.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method, self.url + path, data=body, headers=headers, timeout=20, allow_redirects=False
        )

    def raw(self, sent: bytes) -> bytes:
        """All that is received until the router closes the connection."""
        with socket.create_connection(self.listener.getsockname(), timeout=20) as client:
            client.sendall(sent)
            return client.makefile("rb").read()


@pytest.fixture(scope="module")
def deployments():
    made = Deployments()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared():
    router = Router()
    yield router
    router.answers.close()
    router.control.close()
    assert router.process.wait(5) == 0
    router.listener.close()


@pytest.fixture
def router(shared, deployments):
    """With blue alone, and nothing that an earlier test has left."""
    shared.send(backends=deployments.backends(blue={"share": 100}))
    deployments.gate.clear()
    for lists in (deployments.seen, deployments.bodies):
        for each in lists.values():
            each.clear()
    yield shared
    deployments.gate.set()


def test_traffic_follows_the_shares(router, deployments):
    router.send(backends=deployments.backends(blue={"share": 70}, green={"share": 30}))
    connection, counts = http.client.HTTPConnection(*router.listener.getsockname()), Counter()
    for _ in range(1000):
        connection.request("POST", "/score", b"{}")
        counts[json.loads(connection.getresponse().read())["name"]] += 1
    connection.close()
    assert abs(counts["blue"] - 700) < 4 * math.sqrt(1000 * 0.7 * 0.3)


def test_request_reaches_the_deployment_that_it_names(router, deployments):
    router.send(backends=deployments.backends(blue={"share": 100}, green={}))
    answer = router.ask(azureml_model_deployment="green")
    assert (answer.status_code, answer.json()["name"]) == (200, "green")
    assert answer.headers["azureml-model-deployment"] == "green"
    assert router.ask().json()["name"] == "blue"
    missing = router.ask(azureml_model_deployment="red")
    assert (missing.status_code, "Expected one of: blue, green." in missing.text) == (404, True)


def test_request_gets_404_where_no_deployment_has_traffic(router, deployments):
    router.send("managed", backends=deployments.backends(green={}))
    assert (router.ask().status_code, "traffic" in router.ask().text) == (404, True)
    assert router.ask(azureml_model_deployment="green").status_code == 200


def test_request_is_forwarded_unchanged(router, deployments):
    answer = router.ask("/score?verbose=true&x=%2F", b"abc", X_Mine="1", Connection="close")
    [request] = deployments.seen["blue"]
    assert request.path == "/score?verbose=true&x=%2F"
    assert (request.headers["X-Mine"], request.headers["Content-Length"]) == ("1", "3")
    assert (answer.status_code, answer.json()["size"]) == (200, 3)
    router.ask(body=iter([b"a" * 70_000, b"b" * 70_000]))
    router.ask(body=b"")
    assert requests.get(f"{router.url}/swagger.json", timeout=10).status_code == 200
    assert deployments.bodies["blue"] == [3, 140_000, 0, 0]


def test_answer_keeps_its_framing(router):
    head = router.ask(method="HEAD", body=None)
    assert (head.status_code, int(head.headers["Content-Length"]) > 0, head.text) == (200, True, "")
    assert router.ask("/chunks").json()["name"] == "blue"
    received = router.raw(b"POST /chunks HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    assert b"chunked" not in received
    assert received.endswith(b'{"name": "blue", "size": 0}')


def test_keys_and_tokens_are_checked_before_the_body_is_read(router, deployments):
    later, earlier = time.time() + 100, time.time() - 1
    router.send(
        backends=deployments.backends(blue={"share": 100}),
        keys=["one", "two"],
        tokens={hash_token("lasting"): later, hash_token("ended"): earlier},
    )
    statuses = [
        router.ask(Authorization=header).status_code
        for header in ("Bearer one", "bearer two", "Bearer lasting", "Bearer ended", "Bearer x",
                       "one", "", b"Bearer \xe9")
    ]  # fmt: skip
    assert statuses == [200, 200, 200, 401, 401, 401, 401, 401]
    assert requests.get(router.url, timeout=10).status_code == 200  # the health route
    with socket.create_connection(router.listener.getsockname(), timeout=5) as connection:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401")
    assert len(deployments.seen["blue"]) == 4


@pytest.mark.parametrize("announced", [True, False])
def test_body_above_the_limit_is_rejected(router, announced):
    with socket.create_connection(router.listener.getsockname(), timeout=30) as connection:
        length = f"Content-Length: {MAX_BODY + 1}" if announced else "Transfer-Encoding: chunked"
        connection.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        if not announced:
            chunk = b"400000\r\n" + bytes(4 << 20) + b"\r\n"
            for _ in range((MAX_BODY >> 22) + 1):
                connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_expect_100_continue_is_answered(router):
    with socket.create_connection(router.listener.getsockname(), timeout=10) as connection:
        head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        connection.sendall(head + b"\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hi")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_malformed_request_is_answered_in_http_1_1_with_json(router):
    head, _, body = router.raw(b"hello there\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "could not be read" in json.loads(body)["message"]


def test_waiting_and_new_requests_get_the_problem_of_a_deployment(router, deployments):
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(router.ask, "/slow") for _ in range(4)]
        wait_until(lambda: len(deployments.seen["blue"]) == 4)
        failed = {"share": 100, "problem": "init() raised"}
        router.send("managed", backends=deployments.backends(blue=failed))
        answers = [each.result() for each in waiting] + [router.ask()]
    assert {(each.status_code, each.json()["message"]) for each in answers} == {
        (502, "init() raised")
    }


def test_deleted_deployment_completes_its_running_requests(router, deployments):
    limits = {"share": 100, "max_running": 1, "max_admitted": 2}
    router.send("managed", backends=deployments.backends(blue=limits))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(router.ask, "/slow")
        wait_until(lambda: deployments.seen["blue"])
        with socket.create_connection(router.listener.getsockname(), timeout=20) as waiting:
            waiting.sendall(b"GET /score HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert router.ask().status_code == 429  # two are admitted
            router.send("managed", backends=deployments.backends(green={"share": 100}))
            answer = waiting.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"blue was deleted" in answer
        assert router.ask().json()["name"] == "green"
        deployments.gate.set()
        assert (running.result().status_code, running.result().json()["name"]) == (200, "blue")
    assert len(deployments.seen["blue"]) == 1


def test_response_of_a_killed_container_is_incomplete(router, deployments):
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        router.ask("/cut-off")
    router.send(backends={"blue": {"socket": "127.0.0.1:9/none", "share": 100}})
    answer = router.ask()
    assert (answer.status_code, "cannot be reached" in answer.text) == (502, True)


def test_copies_are_sent_and_delay_nothing(router, deployments):
    both = deployments.backends(blue={"share": 100}, green={"mirror": 100})
    router.send(backends=both)
    for body in (b"x" * 1_000_000, b"", iter([b"a", b"b"])):
        assert router.ask(body=body).json()["name"] == "blue"
    router.ask(azureml_model_deployment="blue")  # a request that names a deployment is not copied
    wait_until(lambda: sorted(deployments.bodies["green"]) == [0, 2, 1_000_000])
    router.send(backends=both | {"green": {"socket": "127.0.0.1:9/none", "mirror": 100}})
    assert router.ask().json()["name"] == "blue"


def test_unfinished_requests_delay_no_other_client(router):
    begun = b"POST /score HTTP/1.1\r\nHost: x\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(150):
            address = router.listener.getsockname()
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(begun[:9] if number % 2 else begun + b"Content-Length: 9\r\n\r\nx")
        assert router.ask().status_code == 200


# Status codes and limits of the platforms. ONLINE: "Troubleshoot online endpoint deployment and
# scoring", HTTP status codes. V1: "Troubleshoot remote model deployment", SDK v1.

RAISED, CHOSEN = "/raised/500", "/chosen/415"


@pytest.mark.parametrize(
    ("platform", "path", "status", "original"),
    [
        ("managed", RAISED, 424, "500"),  # ONLINE
        ("managed", CHOSEN, 424, "415"),  # ONLINE: any non-200 response
        ("managed", "/chosen/204", 424, "204"),
        ("managed", "/chosen/302", 424, "302"),
        ("managed", "/score", 200, None),
        ("kubernetes", RAISED, 502, None),  # ONLINE: exception in run()
        ("kubernetes", CHOSEN, 415, None),
        ("aks", RAISED, 502, None),  # V1: HTTP status code 502
        ("aks", CHOSEN, 415, None),
    ],
)
def test_platform_gives_an_answer_its_status(router, deployments, platform, path, status, original):
    router.send(platform, backends=deployments.backends(blue={"share": 100}))
    answer = router.ask(path)
    found = answer.headers.get("ms-azureml-model-error-statuscode")
    assert (answer.status_code, found) == (status, original)
    assert answer.headers.get("x-ms-run-function-failed") == ("True" if path == RAISED else None)
    assert router.ask(method="GET", path="/").status_code == 200


@pytest.mark.parametrize("platform", ["managed", "kubernetes", "aks"])
def test_timeout_covers_running_and_waiting(router, deployments, platform):
    limits = {"share": 100, "max_running": 1, "max_admitted": 2}
    router.send(platform, backends=deployments.backends(blue={**limits, "timeout": 0.3}))
    assert router.ask("/slow").status_code == PLATFORMS[platform].timeout
    router.send(platform, backends=deployments.backends(blue=limits))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(router.ask, "/slow")
        wait_until(lambda: len(deployments.seen["blue"]) == 2)
        router.send(platform, backends=deployments.backends(blue={**limits, "timeout": 0.3}))
        assert router.ask().status_code == PLATFORMS[platform].timeout
        assert len(deployments.seen["blue"]) == 2  # it did not reach the container
        deployments.gate.set()
        assert running.result().status_code == 200


@pytest.mark.parametrize("platform", ["managed", "kubernetes", "aks"])
def test_requests_above_the_limit_are_rejected_at_once(router, deployments, platform):
    limits = {"share": 100, "max_running": 2, "max_admitted": 4}
    router.send(platform, backends=deployments.backends(blue=limits))
    with ThreadPoolExecutor(8) as pool:
        requests = [pool.submit(router.ask, "/slow") for _ in range(8)]
        wait_until(lambda: sum(map(Future.done, requests)) == 4)  # while run() is busy
        rejected = [each.result().status_code for each in requests if each.done()]
        assert rejected == 4 * [PLATFORMS[platform].overload]
        deployments.gate.set()
        assert Counter(each.result().status_code for each in requests) == {200: 4, rejected[0]: 4}
    assert router.ask().status_code == 200


def test_request_that_waits_too_long_is_rejected(router, deployments):
    limits = {"share": 100, "max_running": 1, "max_admitted": 9, "max_queue_wait": 0.2}
    router.send("aks", backends=deployments.backends(blue=limits))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(router.ask, "/slow")
        wait_until(lambda: deployments.seen["blue"])
        answer = router.ask()
        assert (answer.status_code, "waited for 0.2 s" in answer.text) == (503, True)
        deployments.gate.set()
        assert running.result().status_code == 200


@pytest.mark.parametrize("is_half", [False, True], ids=["closed", "half-closed"])
def test_waiting_request_of_a_disconnected_client_leaves_the_queue(router, deployments, is_half):
    limits = {"share": 100, "max_running": 1, "max_admitted": 2}
    router.send("managed", backends=deployments.backends(blue=limits))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(router.ask, "/slow")
        wait_until(lambda: deployments.seen["blue"])
        with socket.create_connection(router.listener.getsockname(), timeout=20) as client:
            client.sendall(b"GET /abandoned HTTP/1.1\r\n\r\n")
            assert router.ask().status_code == 429  # two are admitted
            if is_half:
                client.shutdown(socket.SHUT_WR)
                assert client.recv(100) == b""
        following = pool.submit(router.ask, "/following")
        deployments.gate.set()
        assert (running.result().status_code, following.result().status_code) == (200, 200)
    assert [each.path for each in deployments.seen["blue"]] == ["/slow", "/following"]


def test_running_request_of_a_disconnected_client_frees_its_slot(router, deployments):
    limits = {"share": 100, "max_running": 1, "max_admitted": 1}
    router.send("managed", backends=deployments.backends(blue=limits))
    with socket.create_connection(router.listener.getsockname()) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        wait_until(lambda: deployments.seen["blue"])
        assert router.ask().status_code == 429
    assert router.ask().status_code == 200  # while the container still runs the first request


@pytest.mark.parametrize(
    "is_signal",
    [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform == "win32", reason="kills"))],
    ids=["message", "SIGTERM"],
)
def test_stopping_router_answers_the_received_requests(deployments, is_signal):
    router = Router()
    router.send(backends=deployments.backends(blue={"share": 100}))
    deployments.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        begun = len(deployments.seen["blue"])
        waiting = pool.submit(router.ask, "/slow")
        wait_until(lambda: len(deployments.seen["blue"]) > begun)
        kept = http.client.HTTPConnection(*router.listener.getsockname())
        kept.connect()
        if is_signal:
            router.process.terminate()
        else:
            router.control.sendall(b'{"drain": true}\n')
        time.sleep(0.1)
        kept.request("POST", "/score", b"{}")
        last = kept.getresponse()
        assert (last.status, last.headers["Connection"]) == (200, "close")
        kept.close()
        deployments.gate.set()
        assert waiting.result().status_code == 200
    assert router.process.wait(10) == 0
    with socket.create_connection(router.listener.getsockname()):  # the next process accepts it
        router.listener.settimeout(5)
        router.listener.accept()[0].close()
    for each in (router.listener, router.answers, router.control):
        each.close()
