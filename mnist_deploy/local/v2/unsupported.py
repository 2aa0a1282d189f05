"""Calls of SDK v2 that the local workspace does not support: 501 with the name of the call."""

from __future__ import annotations

from flask import Blueprint, Response, request

from ..core.faults import NotSupported
from ..rest import PROVIDER, WORKSPACE

METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE"]
ASSET = {"GET *": "list", "GET */*": "get", "GET */*/*": "list", "GET */*/*/*": "get",
         "PUT */*/*/*": "create_or_update", "PUT */*": "archive"}  # fmt: skip
BASIC = {"GET *": "list", "GET */*": "get", "PUT */*": "create_or_update",
         "DELETE */*": "delete"}  # fmt: skip
BEGUN = BASIC | {"PUT */*": "begin_create_or_update", "DELETE */*": "begin_delete"}
BEGUN_ASSET = ASSET | {"PUT */*/*/*": "begin_create_or_update"}
NESTED = {f"{method} */*/{path}": call for (method, _, path), call in
          ((key.partition(" "), call) for key, call in BEGUN.items())}  # fmt: skip
# By the first segment of the URL below the workspace: the attribute of MLClient, and its methods
# by HTTP method and number of segments.
CALLS: dict[str, tuple[str, dict[str, str]]] = {
    "components": ("components", ASSET),
    "computes": ("compute", BEGUN),
    "connections": ("connections", BASIC),
    "data": ("data", ASSET),
    "datastores": ("datastores", BASIC),
    "featuresets": ("feature_sets", BEGUN_ASSET),
    "featurestoreEntities": ("feature_store_entities", BEGUN_ASSET),
    "jobs": ("jobs", BASIC | {"DELETE */*": "begin_delete"}),
    "marketplaceSubscriptions": ("marketplace_subscriptions", BEGUN),
    "models": ("models", ASSET),
    "environments": ("environments", ASSET),
    "onlineEndpoints": ("online_endpoints", BEGUN),
    "outboundRules": (
        "workspace_outbound_rules",
        BASIC | {"PUT */*": "begin_create", "DELETE */*": "begin_remove"},
    ),
    "schedules": ("schedules", BEGUN),
    "serverlessEndpoints": ("serverless_endpoints", BEGUN),
}
# The URLs of deployments begin with that of their endpoint.
DEPLOYMENTS = {"onlineEndpoints": "online_deployments"}
# POST requests, and requests for the workspace itself, by the last segment of the URL.
ACTIONS = {
    ("computes", "listNodes"): "compute.list_nodes",
    ("computes", "restart"): "compute.begin_restart",
    ("computes", "start"): "compute.begin_start",
    ("computes", "stop"): "compute.begin_stop",
    ("diagnose", "diagnose"): "workspaces.begin_diagnose",
    ("jobs", "cancel"): "jobs.begin_cancel",
    ("listKeys", "listKeys"): "workspaces.get_keys",
    ("provisionManagedNetwork", "provisionManagedNetwork"): "workspaces.begin_provision_network",
    ("resyncKeys", "resyncKeys"): "workspaces.begin_sync_keys",
    ("schedules", "trigger"): "schedules.trigger",
    ("serverlessEndpoints", "listKeys"): "serverless_endpoints.get_keys",
    ("serverlessEndpoints", "regenerateKeys"): "serverless_endpoints.begin_regenerate_keys",
}
WORKSPACE_CALLS = {"PUT": "begin_create", "PATCH": "begin_update", "DELETE": "begin_delete"}

DATA_COLLECTOR = b"modelDataCollector"  # in the path of data that a data_collector registers
PROVIDED = f"/subscriptions/<subscription>/resourceGroups/<group>/providers/{PROVIDER}"
REGISTRIES = PROVIDED.rpartition("/")[0] + "/registries"

unsupported_api = Blueprint("unsupported", __name__)


@unsupported_api.route(f"{WORKSPACE}/<path:path>", methods=METHODS)
def reject_call(path: str, **_: str) -> Response:
    raise NotSupported(find_call_name(request.method, path.strip("/")))


@unsupported_api.route(WORKSPACE, methods=list(WORKSPACE_CALLS))
def reject_workspace_change(**_: str) -> Response:
    raise NotSupported(f"workspaces.{WORKSPACE_CALLS[request.method]}")


@unsupported_api.get(PROVIDED)
@unsupported_api.get(f"/subscriptions/<subscription>/providers/{PROVIDER}")
def reject_workspace_list(**_: str) -> Response:
    raise NotSupported("workspaces.list")


@unsupported_api.route(REGISTRIES, methods=METHODS)
@unsupported_api.route(f"{REGISTRIES}/<path:path>", methods=METHODS)
@unsupported_api.route("/registrymanagement/<path:path>", methods=METHODS)
def reject_registries(**_: str) -> Response:
    raise NotSupported("registries: MLClient(registry_name=…) and registries.*")


def find_call_name(method: str, path: str) -> str:
    """The call of the SDK that sends a request with this method and path below a workspace."""
    kind, *others = path.split("/")
    action = ACTIONS.get((kind, path.rpartition("/")[2])) if method == "POST" else None
    if action:
        return action
    client, calls = CALLS.get(kind, ("", {}))
    if len(others) >= 2 and others[1] == "deployments" and kind in DEPLOYMENTS:
        client, calls = DEPLOYMENTS[kind], NESTED
    key = f"{method} {'/'.join('*' * (1 + len(others)))}"
    return f"{client}.{calls[key]}" if key in calls else f"{method} …/{path}"
