"""The workspace itself: how the SDK logs in, what it finds out first, and who uses it."""

from __future__ import annotations

import time

from flask import Blueprint, Response, current_app, jsonify, request
from msgspec import Struct

from ..tls import TENANT, derive
from .artifacts import WORKSPACE
from .refusal import Refusal, body

workspace_api = Blueprint("workspace", __name__)


@workspace_api.route("/msi/<secret>", methods=["GET", "POST"])
def managed_identity(secret: str) -> Response:
    """The endpoint that the SDK asks for a token when no other way to log in was named."""
    return jsonify(
        access_token=current_app.config["TOKEN"],
        expires_on=str(int(time.time()) + 24 * 3600),
        token_type="Bearer",
        resource=request.values.get("resource", ""),
    )


@workspace_api.get("/discovery/<secret>")
def discovery(secret: str) -> Response:
    url = f"https://{current_app.config['HOST']}"
    apis = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio")
    return jsonify(dict.fromkeys(apis, url))


@workspace_api.get("/subscriptions")
def list_subscriptions() -> Response:
    known: set[str] = current_app.extensions["subscriptions"]
    return jsonify(
        value=[
            {
                "id": f"/subscriptions/{subscription}",
                "subscriptionId": subscription,
                "displayName": "local workspace of mnist_deploy",
                "state": "Enabled",
                "tenantId": TENANT,
            }
            for subscription in sorted(known)
        ]
    )


class AskedSubscription(Struct, rename={"subscription_id": "subscriptionId"}):
    subscription_id: str


@workspace_api.post("/subscriptions")
def add_subscription() -> Response:
    """Answer for the subscription of a reader's config.json too: the SDK checks that it exists."""
    current_app.extensions["subscriptions"].add(body(AskedSubscription).subscription_id)
    return jsonify({})


@workspace_api.get(WORKSPACE)
def show_workspace(subscription: str, group: str, workspace: str) -> Response:
    secret = derive(current_app.config["TOKEN"], "discovery")
    host = current_app.config["HOST"]
    return jsonify(
        id=request.path,
        name=workspace,
        type="Microsoft.MachineLearningServices/workspaces",
        location="local",
        tags={},
        sku={"name": "Basic", "tier": "Basic"},
        properties={
            "workspaceId": subscription,
            "friendlyName": workspace,
            "description": "A local workspace of mnist_deploy",
            "discoveryUrl": f"https://{host}/discovery/{secret}",
            "provisioningState": "Succeeded",
        },
    )


class AskedLease(Struct):
    pid: int


@workspace_api.post("/leases")
def add_lease() -> Response:
    if not current_app.extensions["leases"].add(body(AskedLease).pid):
        raise Refusal(503, "Ending", "This control plane is ending.")
    return jsonify({})


@workspace_api.delete("/leases")
def end_leases() -> Response:
    current_app.extensions["leases"].close()
    return jsonify({})
