"""An HTTP server whose responses a test defines, and the responses that several tests use."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import create_autospec

from azureml.core.webservice import AciWebservice

from mnist_deploy.data.idx import decode_idx


class ScriptedServer:
    """Listens on 127.0.0.1 within a ``with`` block and records what it receives.

    ``respond(handler, body)`` returns ``(status, content)`` or ``(status, content, headers)``;
    or it writes to the handler itself and returns None, and the connection is closed.
    """

    def __init__(self, respond, port=0):
        self.bodies: list[bytes] = []
        self.content_types: list[str] = []
        self.keys: list[str | None] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.bodies.append(body)
                outer.content_types.append(self.headers["Content-Type"])
                outer.keys.append(self.headers["Authorization"])
                response = respond(self, body)
                if response is None:
                    self.close_connection = True
                    return
                status, content, headers = (*response, {})[:3]
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}/score"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def respond_always(status, content, headers=None):
    return lambda _handler, _body: (status, content, headers or {})


def zeros_for_idx(_handler, body):
    return 200, [0] * len(decode_idx(body))


def zeros_for_json(_handler, body):
    """Respond as the tutorial's script: 400 to a body that is not UTF-8, 500 if run() raises."""
    try:
        return 200, [0] * len(json.loads(body.decode())["data"])
    except UnicodeDecodeError as error:
        return 400, {"message": f"Input cannot be decoded as UTF-8: {error}"}
    except Exception:
        return 500, {"message": "An unexpected error occurred in scoring script."}


def close_connection(handler, _body):
    linger = bytes([1, 0, 0, 0] + [0] * 4)  # so that the client receives a reset
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def close_within_response(handler, _body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[0,")


def mock_service(uri, keys=("primary", "secondary"), *, kind=AciWebservice, **settings):
    """The SDK's object of a service at a URI; `keys` may be a list that the test changes."""
    service = create_autospec(kind, instance=True)
    settings = {"auth_enabled": True, "state": "Healthy"} | settings
    service.configure_mock(name="svc", scoring_uri=uri, **settings)
    service.get_keys.side_effect = lambda: keys
    return service
