"""The portal: a web page with records, services and logs, and a form to send scoring requests.

A separate listener, started with the first requested link, serves the page over plain http:
browsers would warn of the control plane's certificate.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

from flask import Blueprint, Flask, Response, jsonify
from msgspec import Meta, Struct

from ..bodies import body
from ..core.faults import Invalid
from ..core.runs import Runs
from ..host import networking
from ..listener import Listener
from ..rest import AppState, state
from .authentication import find_body_limit
from .metric_listing import MetricListing
from .page import EXTENSION_TYPES, create_app
from .page_state import PageState, page_state

portal_api = Blueprint("portal", __name__)


class Portal:
    """The page's listener, which starts at the first request for a link, and the links to it.

    Parameters
    ----------
    state : AppState
        The state of the workspace, with a `PageState`.

    Attributes
    ----------
    address : str or None
        The URL of the page; None before the first link.
    """

    def __init__(self, state: AppState) -> None:
        self.address: str | None = None
        self._state = state
        self._lock = threading.Lock()  # held while the listener starts

    def serve(self, port: int = 0) -> str:
        """Start the listener on `port` unless it runs already, and return its address.

        Raises
        ------
        OSError
            If the port is in use.
        """
        with self._lock:
            if self.address is None:
                listening = networking.listen(port)
                host = f"127.0.0.1:{listening.getsockname()[1]}"
                page = self._state.part(PageState)
                Listener(
                    listening,
                    create_app(host, self._state),
                    lambda received: find_body_limit(received, page.codes, page.tokens),
                    name="portal",
                )
                self.address = f"http://{host}/"
        return self.address


def add_extension(page: PageState, folder: Path) -> None:
    """Serve the files of a folder; the page loads ``*.js`` as additional scoring forms."""
    files = (file for file in folder.iterdir() if file.is_file())
    page.extension_files.update(
        (file.name, file) for file in files if file.suffix in EXTENSION_TYPES
    )


def register(app: Flask) -> None:
    """Add the route that creates a link to the page; it requires the control plane's token."""
    app.register_blueprint(portal_api)


def add_state(state: AppState) -> None:
    """Add the portal without starting its listener."""
    state.add(PageState())
    state.add(MetricListing(state.part(Runs).metrics))
    state.add(Portal(state))


class LinkRequest(Struct):
    """The body of ``POST /portal``.

    Attributes
    ----------
    folder : str or None
        A folder whose files extend the page.
    port : int
        The port of a listener that does not run yet; 0 for any free port.
    """

    folder: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


@portal_api.post("/portal")
def make_link() -> Response:
    """Create a link to the page that is valid once, within a minute."""
    requested = body(LinkRequest)
    try:
        if requested.folder is not None:
            add_extension(page_state(), Path("/", requested.folder))
    except (OSError, ValueError) as error:
        raise Invalid("folder", f"{requested.folder!r} cannot be read: {error}") from error
    try:
        address = state().studio_url = state().part(Portal).serve(requested.port)
    except OSError as error:
        raise Invalid(
            "port",
            f"The page cannot be served on port {requested.port}: {error.strerror}. Choose another "
            "port, or 0 for any.",
        ) from error
    return jsonify(url=f"{address}#code={page_state().codes.issue('token')}")
