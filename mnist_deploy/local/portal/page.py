"""What a browser may ask: the page's files, and the little that a tab's token is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request, send_file
from msgspec import Struct
from msgspec.structs import astuple
from werkzeug.exceptions import HTTPException

from ..bodies import body, query
from ..core.endpoints import Endpoint
from ..core.faults import Fault, NotFound
from .authentication import bearer_token
from .downloads import find, pack
from .listing import describe_workspace
from .proxy import read_sample, score

STATIC = Path(__file__).parent / "static"
BODY_LIMIT = 16 << 20  # bytes of a request
LOG_LINES = 500
TOO_LATE = "This link was used before, or is older than a minute."
# The only kinds of files that are handed over, with the types they are served with.
EXTENSION_TYPES = {".js": "text/javascript", ".css": "text/css", ".gz": "application/gzip"}
# What needs no token: the page itself, which holds nothing, and what a code of one use opens.
OPEN = {"page.show", "page.static_file", "page.extension_file", "page.log_in", "page.download"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

page = Blueprint("page", __name__)


def create_app(host: str, **extensions: Any) -> Flask:
    """The page's own HTTP surface.

    Parameters
    ----------
    host : str
        Where it is served, as ``127.0.0.1:port``: the only Host and Origin that are answered.
    **extensions
        ``store`` and ``endpoints`` of the workspace, ``codes`` and ``tokens``, and ``handed``:
        the files that were handed over, by name.
    """
    app = Flask("mnist_deploy.local.portal", static_folder=None)
    app.config.update(HOST=host, MAX_CONTENT_LENGTH=BODY_LIMIT)
    app.extensions.update(extensions)
    app.register_blueprint(page)
    app.before_request(check_sender)
    app.after_request(add_headers)
    app.register_error_handler(Fault, refuse)
    app.register_error_handler(HTTPException, refuse)
    return app


def shared(name: str) -> Any:
    return current_app.extensions[name]


def check_sender() -> None:
    """Answer only what the page itself sends, from a tab that was let in."""
    host, headers = current_app.config["HOST"], request.headers
    if headers.get("Host") != host:
        abort(403, f"This page is at http://{host}/ and answers to no other name.")
    origin = headers.get("Origin")
    if origin != f"http://{host}" and (origin is not None or request.method not in ("GET", "HEAD")):
        abort(403, "This was not sent by the page itself.")
    # A link to the page may stand anywhere; frames, scripts and images of others may not ask.
    if (
        headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        and headers.get("Sec-Fetch-Dest") != "document"
    ):
        abort(403, "This was not sent by the page itself.")
    token = bearer_token(headers.get("Authorization", ""))
    if request.endpoint not in OPEN and not shared("tokens").is_valid(token):
        abort(401, "The token of this tab is not valid. Open the page by a new link.")


def add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def refuse(error: Any) -> tuple[Response, int]:
    if isinstance(error, Fault):
        return jsonify(message=str(error)), 404 if isinstance(error, NotFound) else 400
    return jsonify(message=error.description), error.code or 500


# The page


@page.get("/")
def show() -> Response:
    return send_file(STATIC / "index.html")


@page.get("/<any('portal.css', 'portal.js'):name>")
def static_file(name: str) -> Response:
    return send_file(STATIC / name)


@page.get("/extension/<name>")
def extension_file(name: str) -> Response:
    file = shared("extension_files").get(name)
    if file is None:
        raise NotFound("file", name)
    return send_file(file, mimetype=EXTENSION_TYPES[file.suffix])


class Code(Struct):
    code: str


@page.post("/api/token")
def log_in() -> Response:
    """Exchange the link's code for a token of this tab."""
    if shared("codes").redeem(body(Code).code) != ("token",):
        abort(401, TOO_LATE)
    return jsonify(token=shared("tokens").issue())


# What the token is good for


@page.get("/api/workspace")
def show_workspace() -> Response:
    shown = describe_workspace(shared("store"), shared("endpoints"))
    modules = sorted(
        f"/extension/{name}" for name in shared("extension_files") if name.endswith(".js")
    )
    return jsonify(shown | {"modules": modules})


class Service(Struct):
    kind: str
    name: str
    deployment: str = ""

    def endpoint(self) -> Endpoint:
        return shared("endpoints").get(self.kind, self.name)


@page.get("/api/log")
def show_log() -> Response:
    """The end of a deployment's log."""
    asked = query(Service)
    deployment = asked.endpoint().deployments.get(asked.deployment)
    if deployment is None:
        raise NotFound("deployment", asked.deployment)
    return jsonify(log=deployment.log_tail(LOG_LINES))


@page.get("/api/sample")
def show_sample() -> Response:
    """What a service says that it can be sent."""
    return jsonify(sample=read_sample(query(Service).endpoint()))


@page.post("/api/score")
def score_here() -> Response:
    """Send the body on to a service, so that no key of it comes to the browser."""
    asked = query(Service)
    return jsonify(score(asked.endpoint(), request.get_data(), asked.deployment))


class Registered(Struct):
    kind: Literal["model", "environment"]
    name: str
    version: str


@page.post("/api/download")
def prepare_download() -> Response:
    """A link of one use to the files of a model, or to the content of an environment."""
    asked = astuple(body(Registered))
    find(shared("store"), *asked)
    return jsonify(url=f"/download/{shared('codes').issue(*asked)}")


@page.get("/download/<code>")
def download(code: str) -> Response:
    subject = shared("codes").redeem(code)
    if subject is None or len(subject) != 3:
        abort(401, TOO_LATE)
    return send_file(**pack(shared("store"), find(shared("store"), *subject)))
