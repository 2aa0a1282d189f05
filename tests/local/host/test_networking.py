"""Listeners and event loops; these tests run on each system."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from mnist_deploy.local.host import networking


def test_port_is_not_shared():
    with networking.listen() as listener, pytest.raises(OSError, match=r"in use|10048"):
        networking.listen(listener.getsockname()[1])


def test_private_address_is_connected_to(tmp_path):
    listener, address = networking.listen_privately(Path(networking.socket_folder()))
    listener.settimeout(20)

    async def connect() -> None:
        await networking.connect_privately(asyncio.Protocol, address)

    with asyncio.Runner(loop_factory=networking.new_event_loop) as runner:
        runner.run(connect())
        listener.accept()[0].close()
    networking.close_privately(listener, address)


def test_readable_sockets_are_awaited():
    one, other = socket.socketpair()
    with one, other:
        assert not networking.wait_readable([one, other], 0.01)
        one.send(b"x")
        assert networking.wait_readable([one, other], 20)
    assert not networking.wait_readable([], 0.01)
