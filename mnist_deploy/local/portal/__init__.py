"""The page in the browser: what is registered and deployed, logs, and a place to try a service.

It is served over plain http, because a browser would warn of the control plane's certificate,
by a listener of its own that starts when somebody asks for the page.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Annotated

from flask import Blueprint, Flask, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import body
from ..core.endpoints import Endpoints
from ..core.faults import Invalid
from ..core.store import Store
from ..listener import Listener, QuietHandler
from ..rest import state, state_of
from .authentication import Codes, Tokens
from .page import HANDED_TYPES, create_app

portal_api = Blueprint("portal", __name__)


class Portal:
    """The page's listener, once it was asked for, and the links that lead to it.

    Parameters
    ----------
    store : Store
    endpoints : Endpoints

    Attributes
    ----------
    address : str or None
        Where the page is served; None as long as nobody asked for it.
    """

    def __init__(self, store: Store, endpoints: Endpoints) -> None:
        self.codes = Codes()
        self.address: str | None = None
        self._handed: dict[str, Path] = {}
        self._shared = dict(
            store=store,
            endpoints=endpoints,
            codes=self.codes,
            tokens=Tokens(),
            handed=self._handed,
        )
        self._starting = threading.Lock()

    def serve(self, port: int = 0) -> str:
        """Serve the page, on `port` unless it is served already, and return its address.

        Raises
        ------
        OSError
            If the port is taken.
        """
        with self._starting:
            if self.address is None:
                with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
                    host = f"127.0.0.1:{listener.getsockname()[1]}"
                    app = create_app(host, **self._shared)
                    server = Listener("127.0.0.1", port, app, QuietHandler, fd=listener.fileno())
                threading.Thread(target=server.serve_forever, daemon=True, name="portal").start()
                self.address = f"http://{host}/"
        return self.address

    def hand_over(self, folder: Path) -> None:
        """Serve the files of a folder, and have its ``*.js`` add ways to try a service."""
        files = (file for file in folder.iterdir() if file.is_file())
        self._handed.update((file.name, file) for file in files if file.suffix in HANDED_TYPES)


def register(app: Flask) -> None:
    """Let whoever holds the control plane's token ask for a link to the page."""
    state = state_of(app)
    state.add(Portal(state.store, state.endpoints))
    app.register_blueprint(portal_api)


class Asked(Struct):
    """What a link is asked for with.

    Attributes
    ----------
    folder : str or None
        Its files take part in the page.
    port : int
        Where the page is to be, if it is not served yet; 0 lets the system choose.
    """

    folder: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


@portal_api.post("/portal")
def make_link() -> Response:
    """A link to the page that works once, within a minute."""
    portal = state().part(Portal)
    asked = body(Asked)
    try:
        if asked.folder is not None:
            portal.hand_over(Path("/", asked.folder))
    except (OSError, ValueError) as error:
        raise Invalid("folder", f"{asked.folder!r} cannot be read: {error}") from error
    try:
        address = state().studio_url = portal.serve(asked.port)
    except OSError as error:
        raise Invalid("port", f"port {asked.port} cannot be had ({error.strerror})") from error
    return jsonify(url=f"{address}#code={portal.codes.issue('token')}")
