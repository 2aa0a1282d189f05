"""The part of the Docker Engine API that the local modes of both SDKs call by docker-py.

docker-py sends no credentials. Therefore the API is served on a UNIX socket in a private folder; on
Windows at a port, where the first segment of each path is a secret (see `has_secret`). Each
response has the schema of Docker's API, version 1.44; other calls are answered with 501.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp.web import BaseRequest
from flask import Blueprint, Flask, Response, jsonify, request
from msgspec import Struct, field
from werkzeug.exceptions import HTTPException

from ..bodies import Document, body, query
from ..core.faults import Conflict, Failed, Fault, Invalid, NotFound, NotSupported
from ..core.local_containers import (
    MAX_LOG_LINES,
    PORT,
    Image,
    LocalContainer,
    LocalContainers,
    LocalContainerSpec,
)
from ..rest import STATE, STATUSES, AppState, state
from ..wsgi import WsgiApp, split_target
from .authentication import is_same

API_VERSION, MIN_API_VERSION = "1.44", "1.24"
ENGINE = "mnist_deploy local workspace"
FRAME = struct.Struct(">BxxxL")  # of a log without terminal: stream, length
STDOUT = 1
FAILED = 500  # Docker's status of a container that cannot be started

docker_api = Blueprint("docker", __name__)


def create_docker_app(state: AppState, secret: str = "") -> WsgiApp:
    """The Docker Engine API of local containers, with and without the version before its paths.

    Parameters
    ----------
    state : AppState
    secret : str
        The first segment of each path; without one, paths begin as in Docker's API.
    """
    app = create_unversioned_app(state)

    def without_prefix(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if not has_secret(path, secret):
            return wrong_secret()(environ, start_response)
        path = path[len(secret) + 1 :] if secret else path
        environ["PATH_INFO"] = re.sub(r"^/v\d+\.\d+(?=/)", "", path)
        return app(environ, start_response)

    return without_prefix


def has_secret(path: str, secret: str) -> bool:
    """Whether a path begins with the secret of the listener; a UNIX socket has no secret."""
    return not secret or is_same(path[1:].partition("/")[0], secret)


def find_docker_body_limit(received: BaseRequest, secret: str) -> int | None:
    """The limit of a request's body: see :data:`mnist_deploy.local.listener.BodyLimit`."""
    path, _, _ = split_target(received.raw_path)
    return None if has_secret(path, secret) else 0


def wrong_secret() -> Response:
    message = "This is not the DOCKER_HOST of this local workspace, which changes at each start."
    return Response(json.dumps({"message": message}), 403, mimetype="application/json")


def create_unversioned_app(state: AppState) -> Flask:
    app = Flask("mnist_deploy.local.docker", static_folder=None)
    app.extensions[STATE] = state
    app.register_blueprint(docker_api)
    app.register_error_handler(Fault, answer_fault)
    app.register_error_handler(HTTPException, answer_http_error)
    return app


def local_containers() -> LocalContainers:
    containers = state().local_containers
    assert containers is not None
    return containers


def answer_fault(fault: Fault) -> tuple[Response, int]:
    status = FAILED if isinstance(fault, Failed) else STATUSES[type(fault)]
    # docker-py recognizes a missing image by Docker's message.
    is_image = isinstance(fault, NotFound) and fault.kind == "image"
    return jsonify(message=f"No such image: {fault}" if is_image else str(fault)), status


def answer_http_error(error: HTTPException) -> tuple[Response, int]:
    if error.code in (404, 405):
        return answer_fault(NotSupported(f"{request.method} {request.path} of a Docker Engine"))
    return jsonify(message=error.description), error.code or 500


@docker_api.get("/_ping")
def ping() -> Response:
    return Response("OK", mimetype="text/plain")


@docker_api.get("/version")
def show_version() -> Response:
    return jsonify(
        Version=ENGINE, ApiVersion=API_VERSION, MinAPIVersion=MIN_API_VERSION, Os="linux"
    )


@docker_api.post("/auth")
def log_in() -> Response:
    """Accept any login: SDK v1 logs in to the registry of a base image, which is not pulled."""
    return jsonify(Status="Login Succeeded", IdentityToken="")


class BuildQuery(Struct):
    t: str = ""
    dockerfile: str = "Dockerfile"
    remote: str = ""


@docker_api.post("/build")
def build_image() -> Response:
    """Build an image; docker-py requires lines of JSON without a Content-Length."""
    requested = query(BuildQuery)
    if requested.remote:
        raise NotSupported("a build context at a URL")
    image = local_containers().build(request.stream, requested.dockerfile, requested.t)
    lines = [*image.content.output, f"Successfully built {image.id[7:19]}"]

    def stream() -> Iterator[bytes]:
        for line in lines:
            yield json.dumps({"stream": f"{line}\n"}).encode() + b"\r\n"

    return Response(stream(), mimetype="application/json", headers={"X-Accel-Buffering": "no"})


@docker_api.post("/images/create")
def pull_image() -> Response:
    name = request.args.get("fromImage", "")
    local_containers().find_image(f"{name}:{request.args.get('tag') or 'latest'}")
    return Response(status=200)


@docker_api.get("/images/<path:name>/json")
def show_image(name: str) -> Response:
    return jsonify(serialize_image(local_containers().find_image(name)))


@docker_api.delete("/images/<path:name>")
def remove_image(name: str) -> Response:
    local_containers().remove_image(name)
    return jsonify([{"Deleted": name}])


def serialize_image(image: Image) -> Document:
    variables = [f"{name}={value}" for name, value in image.content.variables.items()]
    return {
        "Id": image.id,
        "RepoTags": image.tags,
        "Created": image.created,
        "Config": {"Env": variables, "Labels": {}},
    }


class ListQuery(Struct):
    all: str = "0"
    limit: int = 0
    filters: str = "{}"


@docker_api.get("/containers/json")
def list_containers() -> Response:
    requested = query(ListQuery)
    shows_all = requested.all.lower() in ("1", "true")
    labels = parse_label_filters(requested.filters)
    found = [
        serialize_container(container)
        for container in local_containers().all()
        if (shows_all or container.status == "running") and has_labels(container, labels)
    ]
    return jsonify(found[: requested.limit] if requested.limit > 0 else found)


def parse_label_filters(text: str) -> list[str]:
    """Parse ``{"label": [...]}``, or its older form, to entries ``NAME`` or ``NAME=VALUE``."""
    try:
        filters = json.loads(text)
        if unknown := sorted(filters.keys() - {"label"}):
            raise NotSupported(f"a list of containers filtered by {', '.join(unknown)}")
        return [str(label) for label in filters.get("label", [])]
    except (ValueError, AttributeError, TypeError) as error:
        raise Invalid(
            "filters", f'filters is {text!r}: expected JSON such as {{"label": ["NAME=VALUE"]}}.'
        ) from error


def has_labels(container: LocalContainer, labels: list[str]) -> bool:
    own = container.spec.labels
    return all(
        own.get(name) == value if is_valued else name in own
        for name, is_valued, value in (label.partition("=") for label in labels)
    )


class PortBinding(Struct, rename="pascal"):
    host_port: str = ""


class HostConfig(Struct, rename="pascal"):
    binds: list[str] | None = None
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    device_requests: list[Any] | None = None
    privileged: bool = False


class Creation(Struct, rename="pascal"):
    image: str
    env: list[str] | None = None
    labels: dict[str, str] | None = None
    tty: bool = False
    cmd: list[str] | str | None = None
    entrypoint: list[str] | str | None = None
    host_config: HostConfig = field(default_factory=HostConfig)


@docker_api.post("/containers/create")
def create_container() -> Response:
    requested = body(Creation)
    rejected = {
        "a command": requested.cmd,
        "an entrypoint": requested.entrypoint,
        "devices (local_enable_gpu=True)": requested.host_config.device_requests,
        "privileges": requested.host_config.privileged,
    }
    for option, value in rejected.items():
        if value:
            raise NotSupported(f"a local container with {option}")
    container = local_containers().create(
        LocalContainerSpec(
            requested.image,
            request.args.get("name", ""),
            dict(split_variable(line) for line in requested.env or []),
            requested.labels or {},
            requested.host_config.binds or [],
            parse_port(requested.host_config),
            requested.tty,
        )
    )
    response = jsonify(Id=container.id, Warnings=[])
    response.status_code = 201
    return response


def split_variable(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def parse_port(host: HostConfig) -> int:
    """The requested port of this machine; 0 for any free port."""
    bindings = (host.port_bindings or {}).get(PORT) or []
    text = bindings[0].host_port if bindings else ""
    if text and not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise Invalid("port", f"{text!r} is not a port: expected 1 to 65535.")
    return int(text or 0)


@docker_api.get("/containers/<name>/json")
def show_container(name: str) -> Response:
    return jsonify(inspect_container(local_containers().find(name)))


def serialize_container(container: LocalContainer) -> Document:
    """The fields of a container in a list."""
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.spec.image,
        "ImageID": container.image.id,
        "Labels": container.spec.labels,
        "State": container.status,
        "Status": container.status,
    }


def inspect_container(container: LocalContainer) -> Document:
    spec, port = container.spec, container.port
    published = [{"HostIp": "127.0.0.1", "HostPort": str(port)}] if port else None
    variables = [f"{name}={value}" for name, value in spec.variables.items()]
    return {
        "Id": container.id,
        "Name": f"/{container.name}",
        "Created": container.created,
        "Image": container.image.id,
        "State": {
            "Status": container.status,
            "Running": container.status == "running",
            "ExitCode": container.exit_code,
        },
        "Config": {
            "Image": spec.image,
            "Labels": spec.labels,
            "Env": variables,
            "Tty": spec.has_terminal,
        },
        "HostConfig": {"Binds": list(spec.binds), "LogConfig": {"Type": "json-file"}},
        "NetworkSettings": {"Ports": {PORT: published}, "IPAddress": ""},
    }


@docker_api.post("/containers/<name>/start")
def start_container(name: str) -> Response:
    local_containers().find(name).start()
    return Response(status=204)


class StopQuery(Struct):
    t: float | None = None


@docker_api.post("/containers/<name>/stop")
def stop_container(name: str) -> Response:
    container, grace = local_containers().find(name), query(StopQuery).t
    container.stop(*(() if grace is None else (grace,)))
    return Response(status=204)


@docker_api.post("/containers/<name>/kill")
def kill_container(name: str) -> Response:
    container = local_containers().find(name)
    if container.status != "running":
        raise Conflict("container", f"{container.name} is not running.")
    container.stop(grace=0.0, exit_code=137)
    return Response(status=204)


class RemoveQuery(Struct):
    force: str = "0"


@docker_api.delete("/containers/<name>")
def remove_container(name: str) -> Response:
    container = local_containers().find(name)
    if container.status == "running" and query(RemoveQuery).force.lower() not in ("1", "true"):
        raise Conflict("container", f"{container.name} is running: stop it first, or use force.")
    local_containers().remove(container)
    return Response(status=204)


class ArchiveQuery(Struct):
    path: str


@docker_api.put("/containers/<name>/archive")
def put_archive(name: str) -> Response:
    local_containers().find(name).extract(query(ArchiveQuery).path, request.stream)
    return Response(status=200)


class LogQuery(Struct):
    tail: str = "all"
    follow: str = "0"


@docker_api.get("/containers/<name>/logs")
def show_logs(name: str) -> Response:
    """Send the log as plain text if the container has a terminal, else in Docker's frames."""
    container, requested = local_containers().find(name), query(LogQuery)
    if requested.follow.lower() in ("1", "true"):
        raise NotSupported("the log of a local container with follow=True")
    lines = int(requested.tail) if requested.tail.isdecimal() else MAX_LOG_LINES
    text = "".join(f"{line}\n" for line in container.log_tail(lines).splitlines()).encode()
    if not container.spec.has_terminal:
        text = FRAME.pack(STDOUT, len(text)) + text
    return Response(text, mimetype="application/octet-stream")
