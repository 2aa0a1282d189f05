"""The workspace as an Azure resource, which every client requests first."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from msgspec import Struct

from .. import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE_NAME
from ..bodies import body
from ..core.faults import NotFound
from ..core.runs import Runs
from ..discovery import CLOUD
from ..portal.listing import describe_workspace
from ..portal.metric_listing import MetricListing
from ..portal.run_files import read_log
from ..portal.run_listing import describe_run, list_runs
from ..rest import WORKSPACE, endpoints, state, store
from ..tokens import TENANT, derive
from .authentication import check_secret

workspace_api = Blueprint("workspace", __name__)


@workspace_api.get("/metadata/endpoints")
def describe_cloud() -> Response:
    """Azure's cloud metadata; the storage suffix serves every account name."""
    host = state().host
    url = f"https://{host}"
    cloud = {
        "name": CLOUD,
        "portal": url,
        "resourceManager": url,
        "graph": url,
        "suffixes": {"storage": f"@{host}"},
        "authentication": {
            "loginEndpoint": url,
            "audiences": [url],
            "tenant": TENANT,
            "identityProvider": "AAD",
        },
    }
    return jsonify([cloud])


@workspace_api.get("/subscriptions")
def list_subscriptions() -> Response:
    return jsonify(
        value=[
            {
                "id": f"/subscriptions/{subscription}",
                "subscriptionId": subscription,
                "displayName": "local workspace of mnist_deploy",
                "state": "Enabled",
                "tenantId": TENANT,
            }
            for subscription in sorted(state().subscriptions)
        ]
    )


def check_workspace_names() -> None:
    """Check the workspace in a request's URL before any route answers it.

    In any subscription but the local one, such as that of a reader's config.json, each workspace
    name refers to the local workspace.

    Raises
    ------
    NotFound
        If the URL names the local subscription and a workspace other than the local one.
    """
    view = request.view_args or {}
    if view.get("subscription") != SUBSCRIPTION or "workspace" not in view:
        return
    names = (view["group"].lower(), view["workspace"].lower())
    if names != (RESOURCE_GROUP, WORKSPACE_NAME):
        hint = f"Expected {WORKSPACE_NAME}, in the resource group {RESOURCE_GROUP}."
        raise NotFound("workspace", f"{view['group']}/{view['workspace']}", hint)


class SubscriptionRequest(Struct, rename="camel"):
    subscription_id: str


@workspace_api.post("/subscriptions")
def add_subscription() -> Response:
    """Register the subscription of the user's config.json: the SDK checks that it exists."""
    state().subscriptions.add(body(SubscriptionRequest).subscription_id)
    return jsonify({})


@workspace_api.get(WORKSPACE)
def show_workspace(subscription: str, group: str, workspace: str) -> Response:
    secret = derive(state().token, "discovery")
    host = state().host
    return jsonify(
        id=request.path,
        name=workspace,
        type="Microsoft.MachineLearningServices/workspaces",
        location="local",
        tags={},
        sku={"name": "Basic", "tier": "Basic"},
        properties={
            "workspaceId": store().id,
            "friendlyName": workspace,
            "description": "A local workspace of mnist_deploy",
            "discoveryUrl": f"https://{host}/discovery/{secret}",
            "mlFlowTrackingUri": f"azureml://{host}/mlflow/v1.0{request.path}",
            "provisioningState": "Succeeded",
        },
    )


@workspace_api.get("/workspace")
def list_all() -> Response:
    """List all registered assets, deployed services and runs, for the command line."""
    listed = describe_workspace(store(), endpoints(), state().local_containers)
    runs = state().part(Runs)
    return jsonify(listed | {"runs": list_runs(runs), "run_count": runs.count()})


@workspace_api.get("/workspace/runs/<run_id>")
def show_run(run_id: str) -> Response:
    """Return one run with its lineage and the end of its log, for the command line."""
    runs = state().part(Runs)
    run = runs.get(run_id)
    described = describe_run(run, runs, endpoints(), state().part(MetricListing))
    return jsonify(described | {"log": read_log(run, runs, 0)["text"]})


@workspace_api.get("/discovery/<secret>")
def discovery(secret: str) -> Response:
    """Return the URL of each of Azure's APIs, all of which this control plane serves."""
    check_secret(secret, "discovery")
    url = state().url
    apis = ("api", "experimentation", "history", "hyperdrive", "modelmanagement")
    page = state().studio_url or url
    return jsonify(dict.fromkeys(apis, url) | {"studio": page.rstrip("/")})
