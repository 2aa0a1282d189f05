"""What Azure has and the local workspace has not: refused by the name of the SDK's call."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from ..core.faults import NotSupported
from ..rest import WORKSPACE

METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]
BEGUN = {"batchEndpoints", "computes", "onlineEndpoints", "schedules", "serverlessEndpoints"}
NAMES = {"computes": "compute"}  # what the client calls otherwise than the URL does

DATA_COLLECTOR = b"modelDataCollector"  # in the path of data that a data_collector registers

unsupported_api = Blueprint("unsupported", __name__)


@unsupported_api.route(f"{WORKSPACE}/<kind>", methods=METHODS)
@unsupported_api.route(f"{WORKSPACE}/<kind>/<path:rest>", methods=METHODS)
def refuse(kind: str, rest: str = "", **_: str) -> Response:
    raise NotSupported(f"{call_name(kind, rest)} ({request.method} …/{kind})")


@unsupported_api.route("/registrymanagement/<path:rest>", methods=METHODS)
def refuse_registries(rest: str) -> Response:
    raise NotSupported("registries: MLClient(registry_name=…)")


def call_name(kind: str, rest: str) -> str:
    """``jobs.create_or_update`` for a PUT below ``jobs``."""
    client = NAMES.get(kind) or re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", kind)
    begin = "begin_" if kind in BEGUN else ""
    verbs = {
        "GET": "get" if rest and not rest.endswith("/versions") else "list",
        "PUT": f"{begin}create_or_update",
        "PATCH": f"{begin}update",
        "DELETE": f"{begin}delete",
    }
    return f"{client}.{verbs.get(request.method, rest.rpartition('/')[2] or 'post')}"
