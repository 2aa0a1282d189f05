"""How many are served at once by a listener of the control plane."""

from __future__ import annotations

import socket
import threading

import pytest
import requests
from werkzeug.wrappers import Response

from mnist_deploy.local import listener


def test_whoever_comes_when_it_is_full_is_served_when_another_has_left(monkeypatch):
    monkeypatch.setattr(listener, "MOST", 3)
    server = listener.Listener("127.0.0.1", 0, Response("served"), listener.QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert requests.get(url, timeout=5).text == "served"  # and gone again
    silent = [socket.create_connection(server.server_address, timeout=5) for _ in range(3)]
    with pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.3)
    silent.pop().close()
    assert requests.get(url, timeout=5).text == "served"
    for connection in silent:
        connection.close()
    server.shutdown()
    server.server_close()
