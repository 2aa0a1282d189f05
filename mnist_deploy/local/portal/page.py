"""The portal's HTTP routes: the page's files, and the routes that a tab's token authorizes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request, send_file
from msgspec import Struct
from msgspec.structs import astuple
from werkzeug.exceptions import HTTPException

from ..bodies import body, query
from ..core.deployments import Deployment
from ..core.endpoints import Endpoint
from ..core.faults import Fault, NotFound
from ..core.runs import Runs
from ..rest import STATE, AppState, endpoints, state, store
from .authentication import bearer_token
from .downloads import attachment, find_record, send_record, send_run_files
from .listing import describe_workspace
from .local_services import KIND as LOCAL_SERVICE
from .local_services import LocalService, find_local_service
from .page_state import page_state
from .proxy import read_sample, score
from .run_routes import run_routes

if TYPE_CHECKING:
    from ..core.local_containers import LocalContainer

STATIC = Path(__file__).parent / "static"
STATIC_FILES = ("portal.css", "portal.js", "nodes.js", "curves.js", "runs.js")
BODY_LIMIT = 16 << 20  # bytes of a request
LOG_LINES = 500
WHOLE_LOG = 1 << 40  # lines
LINK_EXPIRED = "This link was used before, or is older than a minute: create another link."
# Suffixes of an extension's served files, with their content types.
EXTENSION_TYPES = {".js": "text/javascript", ".css": "text/css", ".gz": "application/gzip"}
# Routes that require no token: the page itself, which contains no data, and routes with a code.
WITHOUT_TOKEN = {"page.show_page", "page.static_file", "page.extension_file", "page.log_in",
                 "page.download", "runs.open_run"}  # fmt: skip
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


def create_app(host: str, state: AppState) -> Flask:
    """Create the portal's app.

    Parameters
    ----------
    host : str
        The address ``127.0.0.1:port`` of the listener: the only accepted Host and Origin.
    state : AppState
        The state of the workspace, with a `PageState`.
    """
    app = Flask("mnist_deploy.local.portal", static_folder=None)
    app.config.update(HOST=host, MAX_CONTENT_LENGTH=BODY_LIMIT)
    app.extensions[STATE] = state
    app.register_blueprint(page)
    app.register_blueprint(run_routes)
    app.before_request(check_sender)
    app.after_request(add_headers)
    app.register_error_handler(Fault, serialize_error)
    app.register_error_handler(HTTPException, serialize_error)
    return app


def check_sender() -> None:
    """Reject requests from other pages, and from tabs without a valid token."""
    host, headers = current_app.config["HOST"], request.headers
    if headers.get("Host") != host:
        abort(403, f"Unknown Host header. This page is served at http://{host}/ only.")
    origin = headers.get("Origin")
    if origin != f"http://{host}" and (origin is not None or request.method not in ("GET", "HEAD")):
        abort(403, "Cross-origin request rejected.")
    # Any page may contain a link to this page; its frames, scripts and images are rejected.
    if (
        headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        and headers.get("Sec-Fetch-Dest") != "document"
    ):
        abort(403, "Cross-origin request rejected.")
    token = bearer_token(headers.get("Authorization", ""))
    if request.endpoint not in WITHOUT_TOKEN and not page_state().tokens.is_valid(token):
        abort(
            401,
            "The token of this tab is not valid. Open the page by a new link: "
            "python -m mnist_deploy.local portal",
        )


def add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def serialize_error(error: Any) -> tuple[Response, int]:
    if isinstance(error, Fault):
        return jsonify(message=str(error)), 404 if isinstance(error, NotFound) else 400
    return jsonify(message=error.description), error.code or 500


# The page


@page.get("/")
def show_page() -> Response:
    return send_file(STATIC / "index.html")


@page.get(f"/<any({', '.join(map(repr, STATIC_FILES))}):name>")
def static_file(name: str) -> Response:
    return send_file(STATIC / name)


@page.get("/extension/<name>")
def extension_file(name: str) -> Response:
    file = page_state().extension_files.get(name)
    if file is None:
        raise NotFound("file", name)
    return send_file(file, mimetype=EXTENSION_TYPES[file.suffix])


class Code(Struct):
    code: str


@page.post("/api/token")
def log_in() -> Response:
    """Exchange a link's code for a token of this tab."""
    if page_state().codes.redeem(body(Code).code) != ("token",):
        abort(401, LINK_EXPIRED)
    return jsonify(token=page_state().tokens.issue())


# Calls that require the token


@page.post("/api/code")
def issue_code() -> Response:
    """Create the code by which this tab opens another tab."""
    return jsonify(code=page_state().codes.issue("token"))


@page.get("/api/workspace")
def show_workspace() -> Response:
    shown = describe_workspace(store(), endpoints(), state().local_containers)
    modules = sorted(
        f"/extension/{name}" for name in page_state().extension_files if name.endswith(".js")
    )
    return jsonify(shown | {"modules": modules, "run_count": state().part(Runs).count()})


class Service(Struct):
    kind: str
    name: str
    deployment: str = ""

    def endpoint(self) -> Endpoint | LocalService:
        if self.kind == LOCAL_SERVICE:
            return find_local_service(state().local_containers, self.name)
        return endpoints().get(self.kind, self.name)

    def find_deployment(self) -> Deployment | LocalContainer:
        deployment = self.endpoint().deployments.get(self.deployment)
        if deployment is None:
            raise NotFound("deployment", self.deployment)
        return deployment


@page.get("/api/log")
def show_log() -> Response:
    """Return the last lines of a deployment's log, and whether there are earlier lines."""
    lines = query(Service).find_deployment().log_tail(LOG_LINES + 1).splitlines(keepends=True)
    return jsonify(log="".join(lines[-LOG_LINES:]), cut=len(lines) > LOG_LINES)


@page.get("/api/sample")
def show_sample() -> Response:
    """Return the sample input that a service's swagger.json declares."""
    return jsonify(sample=read_sample(query(Service).endpoint()))


@page.post("/api/score")
def score_input() -> Response:
    """Proxy the body to a service, so that its key does not reach the browser."""
    requested = query(Service)
    if requested.deployment:
        requested.find_deployment()  # a name that does not exist must not become a header
    return jsonify(score(requested.endpoint(), request.get_data(), requested.deployment))


@page.post("/api/log-download")
def prepare_log_download() -> Response:
    """Create a one-time link to the whole log of a deployment."""
    requested = body(Service)
    requested.find_deployment()
    code = page_state().codes.issue("log", requested.kind, requested.name, requested.deployment)
    return jsonify(url=f"/download/{code}")


class Registered(Struct):
    kind: Literal["model", "environment"]
    name: str
    version: str


@page.post("/api/download")
def prepare_download() -> Response:
    """Create a one-time link to the files of a model, or to the conda file of an environment."""
    requested = astuple(body(Registered))
    find_record(store(), *requested)
    return jsonify(url=f"/download/{page_state().codes.issue(*requested)}")


@page.get("/download/<code>")
def download(code: str) -> Response:
    subject = page_state().codes.redeem(code)
    match subject:
        case ("log", kind, name, deployment):
            log = Service(kind, name, deployment).find_deployment().log_tail(WHOLE_LOG)
            content = BytesIO(log.encode(errors="replace"))
            return send_file(**attachment(content, f"{name}-{deployment}.log", "text/plain"))
        case ("model" | "environment", _, _):
            return send_record(store(), find_record(store(), *subject))
        case ("run", run_id, name):
            runs = state().part(Runs)
            return send_run_files(runs.get(run_id), runs, name)
    abort(401, LINK_EXPIRED)
