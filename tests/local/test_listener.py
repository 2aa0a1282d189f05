"""The listener: what slow and hostile connections cost, and that trusted ones are not affected."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
from polling import wait_until
from werkzeug.wrappers import Request, Response

from mnist_deploy.local import listener
from mnist_deploy.local.listener import Listener
from mnist_deploy.local.tls import create_server_context

TRUSTED = {"Authorization": "Bearer secret"}
held = threading.Event()


@Request.application
def app(request: Request) -> Response:
    """Answers with the body's size; ``/held`` waits, ``/large`` is 20 MB, ``/error`` fails."""
    match request.path:
        case "/held":
            held.wait(30)
        case "/large":
            return Response((b"x" * (1 << 20) for _ in range(20)), mimetype="text/plain")
        case "/error":
            raise RuntimeError("the app fails")
        case "/environ":
            return Response(f"{request.environ['PATH_INFO']} {request.environ['QUERY_STRING']}")
    size = sum(map(len, iter(lambda: request.stream.read(1 << 16), b"")))
    return Response(f"{request.scheme} {size}")


def body_limit(requested) -> int | None:
    return None if requested.headers.get("Authorization") == "Bearer secret" else 1000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    create_server_context(folder)
    return folder / "certificate.pem"


@pytest.fixture
def port(certificate) -> Iterator[int]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    listening = socket.create_server(("127.0.0.1", 0))
    number = listening.getsockname()[1]
    held.clear()
    served = Listener(listening, app, body_limit, tls=tls, name="tested")
    yield number
    held.set()
    served.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number), timeout=5)


@pytest.fixture
def session(certificate) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(certificate)
        yield session


@contextlib.contextmanager
def open_connections(port: int, count: int, beginning: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            with contextlib.suppress(ConnectionError):
                client.sendall(beginning)
            opened.append(client)
        yield opened


def test_tls_and_plain_http_are_served_on_one_port(port, session):
    assert session.get(f"https://127.0.0.1:{port}/").text == "https 0"
    assert session.get(f"http://127.0.0.1:{port}/").text == "http 0"


@pytest.mark.parametrize("size", [0, 10, 1 << 20, 30 << 20])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_of_a_trusted_request_arrives_whole(port, session, size, is_chunked):
    body = b"x" * size
    data = iter([body]) if is_chunked and size else body
    answer = session.put(f"https://127.0.0.1:{port}/", data=data, headers=TRUSTED)
    assert answer.text == f"https {size}"


def test_large_response_is_sent_in_pieces_and_cut_off_visibly_when_the_app_fails(port, session):
    assert len(session.get(f"https://127.0.0.1:{port}/large").content) == 20 << 20
    with pytest.raises(requests.ConnectionError):
        session.get(f"https://127.0.0.1:{port}/error")


def test_path_and_query_reach_the_app_as_wsgi_defines_them(port, session):
    answer = session.get(f"http://127.0.0.1:{port}/environ?d=e%20f&g")
    assert answer.text == "/environ d=e%20f&g"


@pytest.mark.parametrize("target", [b"/env%69ron?a", b"http://other.example/environ?a"])
def test_encoded_and_absolute_targets_are_understood(port, target):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.endswith(b"/environ a")


def test_body_over_the_limit_is_rejected_without_a_secret(port, session):
    url = f"http://127.0.0.1:{port}/"
    assert session.post(url, b"x" * 1000).text == "http 1000"
    for data in (b"x" * 1001, iter([b"x" * 1001])):
        assert session.post(url, data=data).status_code == 413


def test_expected_body_gets_100_continue(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                       b"Content-Length: 3\r\n\r\n")  # fmt: skip
        assert client.recv(100).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"abc")
        assert b"http 3" in client.recv(1000)


HALF_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize(
    "beginning",
    [b"", b"G", b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ", HALF_HANDSHAKE,
     b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\nx"],
    ids=["silent", "one byte", "half a head", "half a handshake", "half a body"],
)  # fmt: skip
def test_unfinished_connections_do_not_block_others(port, session, beginning):
    with open_connections(port, 400, beginning):
        assert session.get(f"https://127.0.0.1:{port}/", timeout=5).ok  # a new connection
        assert session.get(f"https://127.0.0.1:{port}/", headers=TRUSTED, timeout=5).ok


def test_trusted_connection_is_kept_while_untrusted_ones_are_closed(port, session):
    kept = requests.Session()
    with kept:
        kept.trust_env, kept.verify = False, session.verify
        url = f"https://127.0.0.1:{port}/"
        assert kept.get(url, headers=TRUSTED).ok
        pools = kept.adapters["https://"].poolmanager.pools
        [pool] = map(pools.get, pools.keys())
        with open_connections(port, 2 * listener.MAX_UNTRUSTED, b"GET") as opened:
            opened[0].settimeout(5)
            with contextlib.suppress(ConnectionResetError):  # closed with unread bytes
                assert opened[0].recv(1) == b""
            assert kept.get(url, headers=TRUSTED, timeout=5).ok
        assert pool.num_connections == 1


def test_unfinished_heads_are_closed_in_time(port, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_TIMEOUT", 0.2)
    with open_connections(port, 3, b"GET / HTTP/1.1\r\n") as opened:
        for client in opened:
            assert client.recv(1) == b""


def test_unfinished_heads_take_no_memory(port):
    before = psutil.Process().memory_info().rss
    line = b"X-A: " + b"y" * 4000 + b"\r\n"
    with open_connections(port, 200, b"GET / HTTP/1.1\r\nHost: h\r\n" + line * 1500):
        assert psutil.Process().memory_info().rss - before < 300 << 20


def test_bodies_without_a_secret_share_a_limit_of_memory(port, session, monkeypatch):
    monkeypatch.setattr(listener, "MAX_UNTRUSTED_MEMORY", 2000)
    half = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
    url = f"http://127.0.0.1:{port}/"
    with open_connections(port, 2, half):
        wait_until(lambda: session.post(url, b"x" * 900).status_code == 503, 5)
        assert session.post(f"https://127.0.0.1:{port}/", b"x" * 9000, headers=TRUSTED).ok
    wait_until(lambda: session.post(url, b"x" * 900).status_code == 200, 5)


def test_requests_that_are_held_leave_threads_for_others(port, certificate):
    context = ssl.create_default_context(cafile=str(certificate))
    head = b"GET /held HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(120):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
            stack.enter_context(secure).sendall(head)
        url = f"https://127.0.0.1:{port}/"
        answer = requests.get(url, headers=TRUSTED, verify=str(certificate), timeout=5)
        assert answer.ok
        held.set()


def test_listener_continues_after_file_descriptors_were_exhausted(port, session, caplog):
    resource = pytest.importorskip("resource", reason="Windows limits no file descriptors")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limit[1]))
    try:
        client.connect(("127.0.0.1", port))
        wait_until(lambda: "No connection can be accepted" in caplog.text, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        client.close()
    began = time.monotonic()
    assert session.get(f"https://127.0.0.1:{port}/", timeout=5).ok
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/9.9\r\n\r\n", b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost h\r\n\r\n",
     b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
     b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_malformed_head_is_answered_with_400_and_not_logged(port, head, caplog, capfd):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(head)
        assert client.recv(100).split()[1] == b"400"
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")
