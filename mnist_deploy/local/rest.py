"""Shared parts of the REST APIs: URLs, the app's state, errors, keys, pages and headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote, urlencode

from flask import Flask, Response, current_app, jsonify, request
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from .bodies import Document
from .core import faults
from .core.endpoints import Endpoints, EndpointSpec, new_key
from .core.operations import Operation
from .core.records import Model
from .core.store import Store

if TYPE_CHECKING:
    from .core.local_containers import LocalContainers

T = TypeVar("T")
Item = TypeVar("Item")

PROVIDER = "Microsoft.MachineLearningServices/workspaces"
WORKSPACE = f"/subscriptions/<subscription>/resourceGroups/<group>/providers/{PROVIDER}/<workspace>"
STATE = "mnist_deploy"  # the key of the state in an app's extensions

# Headers.
OPERATION_LOCATION = "Operation-Location"  # of a long operation, for SDK v1
ASYNC_OPERATION = "Azure-AsyncOperation"  # of a long operation, for Azure Resource Manager

STATUSES: dict[type[faults.Fault], int] = {
    faults.Conflict: 409,
    faults.Denied: 401,
    faults.Failed: 400,
    faults.Full: 400,  # both SDKs and the storage client repeat a request that got 507
    faults.InUse: 409,
    faults.Invalid: 400,
    faults.NotFound: 404,
    faults.NotSupported: 501,
}
# Of Azure Resource Manager's error schema; SDK v1's and blob storage's have codes of their own.
CODES: dict[type[faults.Fault], str] = {
    faults.Conflict: "ResourceConflict",
    faults.Denied: "AuthenticationFailed",
    faults.Failed: "ResourceNotReady",
    faults.Full: "InsufficientStorage",
    faults.InUse: "ResourceInUse",
    faults.Invalid: "UserError",
    faults.NotFound: "ResourceNotFound",
    faults.NotSupported: "NotImplemented",
}
# Some messages of SDK v1 show only the status line.
NOT_SUPPORTED_LINE = "501 Not supported by the local workspace of mnist_deploy"


@dataclass
class AppState:
    """The state that the request handlers of one app share.

    Attributes
    ----------
    token : str
        The bearer token of every request, except for URLs that contain a secret.
    host : str
        The address of the app, as ``127.0.0.1:port``.
    subscriptions : set of str
        The ids of the subscriptions that contain the workspace.
    studio_url : str
        The URL of the portal; empty until the portal is served.
    assets : dict of str to tuple of str
        The artifacts of SDK v1's assets by the asset's id, until a model is registered from them.
    kept_artifacts : list of str
        Artifacts of packages: a GC root of the store.
    local_containers : LocalContainers or None
        The containers of the Docker Engine API; None if that API is not served.
    """

    store: Store
    endpoints: Endpoints
    token: str
    host: str
    subscriptions: set[str] = field(default_factory=set)
    studio_url: str = ""
    assets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept_artifacts: list[str] = field(default_factory=list)
    local_containers: LocalContainers | None = None
    _parts: dict[type, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    def add(self, part: T) -> T:
        """Add state that only one API uses; `part` returns it by its type."""
        self._parts[type(part)] = part
        return part

    def has(self, kind: type) -> bool:
        return kind in self._parts

    def part(self, kind: type[T]) -> T:
        return self._parts[kind]


def state_of(app: Flask) -> AppState:
    return app.extensions[STATE]


def state() -> AppState:
    """The state of the app that handles the current request."""
    return current_app.extensions[STATE]


def store() -> Store:
    return state().store


def endpoints() -> Endpoints:
    return state().endpoints


def delete_model_version(model: Model) -> None:
    """Delete one version of a model.

    Raises
    ------
    InUse
        If services use the version.
    """
    if users := endpoints().using(model.id):
        raise faults.InUse("model", model.id, users)
    store().delete(Model, model.name, model.version)


# Errors.


def serialize_fault(fault: faults.Fault) -> Document:
    """The ``error`` of an answer or of a failed operation, as Azure Resource Manager writes it."""
    return {
        "code": CODES[type(fault)],
        "message": str(fault),
        "target": fault.kind,
        "details": [],
    }


def answer_fault(fault: faults.Fault) -> Response:
    return error_response(STATUSES[type(fault)], {"error": serialize_fault(fault)})


def answer_http_error(error: HTTPException) -> Response:
    """Answer an error of the routing; an unknown URL is a call that is not supported."""
    if error.code in (404, 405):
        return answer_fault(faults.NotSupported(f"{request.method} {request.path}"))
    document: Document = {"code": error_code(error), "message": error.description, "details": []}
    return error_response(error.code or 500, {"error": document})


def error_code(error: HTTPException) -> str:
    """``RequestEntityTooLarge`` for 413."""
    return error.name.replace(" ", "")


def error_response(status: int, document: Document) -> Response:
    response = jsonify(document)
    response.status_code = status
    if status == 501:
        response.status = NOT_SUPPORTED_LINE
    return response


# Keys.


class Regeneration(Struct, rename="camel"):
    """The key to replace. SDK v2 sends the present key as `key_value`, SDK v1 the new key."""

    key_type: Literal["Primary", "Secondary"]
    key_value: str | None = None


def serialize_keys(spec: EndpointSpec) -> Document:
    return {"primaryKey": spec.primary_key, "secondaryKey": spec.secondary_key}


def regenerate_key(
    kind: str,
    name: str,
    which: Literal["Primary", "Secondary"],
    key: str = "",
    check: Callable[[EndpointSpec], None] = lambda spec: None,
) -> Operation:
    """Replace one key of an endpoint by `key`, or by a new one; `check` may reject the change."""

    def change(spec: EndpointSpec) -> EndpointSpec:
        check(spec)
        return spec.with_key(which, key or new_key())

    return endpoints().change(kind, name, change)


# Lists.


def paginate(
    items: Iterable[Item],
    serialize: Callable[[Item], Document],
    *,
    start: int,
    size: int,
    parameter: str,
) -> Document:
    """Return a page of a list, with the URL of the next page: its start is `parameter`."""
    found, end = list(items), start + size
    answer: Document = {"value": [serialize(item) for item in found[start:end]]}
    if end < len(found):
        answer["nextLink"] = next_link(parameter, end)
    return answer


def next_link(parameter: str, value: int) -> str:
    """The URL of the present request with another value of one parameter."""
    following = request.args.to_dict() | {parameter: str(value)}
    return f"{state().url}{quote(request.path)}?{urlencode(following)}"
