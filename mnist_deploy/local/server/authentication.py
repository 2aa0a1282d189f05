"""Authentication at the control plane: by the workspace's token, or by a secret in the URL.

The app calls `check_token` before every request. The listener calls `find_body_limit`, which
makes the same decision, before the request gets a thread: it limits the size of the body.
"""

from __future__ import annotations

import hmac
import time

from aiohttp.web import BaseRequest
from flask import Blueprint, Response, jsonify, request

from ..core.faults import Denied
from ..rest import state
from ..tokens import derive
from ..v1.datastores import CONTAINER
from ..wsgi import split_target
from .blobs import is_signed
from .datastore_blobs import is_container_signed
from .telemetry import MAX_BODY

# Beginnings of URLs that contain a secret, which the function of the route checks.
OWN_SECRET = ("/blobs", f"/{CONTAINER}", "/discovery/", "/msi/")
# Served over plain http as well: the cloud metadata, which both SDKs request by http and which
# contain no secret; and telemetry, whose items have the key of their service.
PLAIN = ("/metadata/", "/v2.1/track")

authentication_api = Blueprint("authentication", __name__)


def check_token() -> None:
    """Reject a request without the token; called before every request.

    Raises
    ------
    Denied
        If the token is missing or wrong, or the request was sent over plain http.
    """
    if request.path.startswith(PLAIN) and request.endpoint is not None:
        return
    if request.scheme != "https":
        raise Denied(
            "address",
            "Only /metadata/endpoints and /v2.1/track are served over plain http: use https.",
        )
    if request.endpoint is not None and request.path.startswith(OWN_SECRET):
        return
    check(bearer_token(request.headers.get("Authorization", "")), state().token)


def check_secret(offered: str, purpose: str) -> None:
    """Reject a URL whose secret was not derived for `purpose`.

    Raises
    ------
    Denied
        If the secret is wrong.
    """
    check(offered, derive(state().token, purpose))


def check(offered: str, expected: str) -> None:
    if not is_same(offered, expected):
        raise Denied(
            "token",
            "The token is not that of this workspace, which changes at each start. Connect again.",
        )


def is_same(offered: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(offered.encode("utf-8", "surrogateescape"), expected.encode())


def bearer_token(authorization: str) -> str:
    return authorization.removeprefix("Bearer ")


def find_body_limit(received: BaseRequest, token: str) -> int | None:
    """The limit of a request's body: see :data:`mnist_deploy.local.listener.BodyLimit`."""
    path, _, query = split_target(received.raw_path)
    if path == "/v2.1/track":
        return MAX_BODY
    _, segment, *rest = path.split("/", 2)
    if segment == "blobs":
        is_trusted = is_signed(token, "".join(rest), query)
    elif segment == CONTAINER:
        is_trusted = is_container_signed(token, query)
    elif segment in ("discovery", "msi"):
        is_trusted = is_same("".join(rest), derive(token, segment))
    else:
        is_trusted = is_same(bearer_token(received.headers.get("Authorization", "")), token)
    return None if is_trusted else 0


@authentication_api.route("/msi/<secret>", methods=["GET", "POST"])
def issue_identity_token(secret: str) -> Response:
    """The managed identity endpoint, from which the SDKs request a token without a credential."""
    check_secret(secret, "msi")
    return jsonify(
        access_token=state().token,
        expires_on=str(int(time.time()) + 24 * 3600),
        token_type="Bearer",
        resource=request.values.get("resource", ""),
    )
