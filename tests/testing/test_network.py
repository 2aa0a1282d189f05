"""Connections to other machines are blocked while a workspace is mocked; local ones work."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
import urllib.request

import pytest
import requests

import mnist_deploy as md
from mnist_deploy.testing import mock_workspace
from mnist_deploy.testing.network import ConnectionBlocked, is_this_machine

OTHER_MACHINE = "198.51.100.7"  # reserved for documentation: no machine has it


async def open_stream():
    await asyncio.open_connection("other.example", 443)


TRIES = {
    "requests": lambda: requests.get("https://other.example/"),
    "urllib": lambda: urllib.request.urlopen("http://other.example/"),
    "asyncio": lambda: asyncio.run(open_stream()),
    "a name": lambda: socket.create_connection(("other.example", 80)),
    "a name, looked up by the socket": lambda: tcp(lambda s: s.connect(("other.example", 80))),
    "a look-up": lambda: socket.getaddrinfo(host="other.example", port=443),
    "an old look-up": lambda: socket.gethostbyname("other.example"),
    "an address": lambda: tcp(lambda s: s.connect((OTHER_MACHINE, 80))),
    "an address, without an exception": lambda: tcp(lambda s: s.connect_ex((OTHER_MACHINE, 80))),
    "a datagram": lambda: udp(lambda s: s.sendto(b"", (OTHER_MACHINE, 53))),
    "a datagram with flags": lambda: udp(lambda s: s.sendto(b"", 0, (OTHER_MACHINE, 53))),
}
if hasattr(socket.socket, "sendmsg"):  # not on Windows
    TRIES["a message"] = lambda: udp(lambda s: s.sendmsg([b""], [], 0, (OTHER_MACHINE, 53)))


def tcp(use, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as client:
        use(client)


def udp(use):
    tcp(use, socket.SOCK_DGRAM)


@pytest.mark.parametrize("way", TRIES)
def test_blocked_connection_names_its_host(mocked_workspace, cloud, way):
    host = OTHER_MACHINE if "address" in way or "datagram" in way or "message" in way else "other"
    cloud.expect_error(ConnectionBlocked)
    with pytest.raises(ConnectionBlocked, match=host):
        TRIES[way]()


def test_swallowed_error_of_a_blocked_connection_is_raised_at_the_end():
    @mock_workspace()
    def swallow_it():
        with contextlib.suppress(Exception):
            requests.get("https://other.example/")

    with pytest.raises(ConnectionBlocked, match="other"):
        swallow_it()


@pytest.fixture
def server():
    """A web server on the loopback, as a test may start one of its own."""

    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": print})
    with http.server.ThreadingHTTPServer(("", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_local_server_is_reachable(mocked_workspace, server, host):
    assert requests.get(f"http://{host}:{server}").ok
    with urllib.request.urlopen(f"http://{host}:{server}") as answer:
        assert answer.status == 200

    async def connect():
        _, writer = await asyncio.open_connection(host, server)
        writer.close()
        await writer.wait_closed()

    asyncio.run(connect())
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"x")
        assert there.recv(1) == b"x"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Python has none on Windows")
def test_unix_socket_is_allowed(mocked_workspace, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)


def test_other_client_than_requests_is_blocked_with_the_reason(mocked_workspace, deploy, cloud):
    service = deploy(mocked_workspace)
    cloud.expect_error(ConnectionBlocked)
    with pytest.raises(ConnectionBlocked, match=r"svc\.services\.mocked\.invalid.*`requests`"):
        urllib.request.urlopen(service.scoring_uri)
    md.delete_service(service)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        (None, True),
        ("", True),
        ("LOCALHOST", True),
        (b"127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("localhost.example", False),
        (socket.gethostname(), True),
    ],
)
def test_hosts_of_this_machine_are_recognized(host, here):
    assert is_this_machine(host) == here
