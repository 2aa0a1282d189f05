"""Who is let in: whoever has the token of this workspace, and how the SDK gets it."""

from __future__ import annotations

import hmac
import time

from flask import Blueprint, Response, jsonify, request

from ..core.faults import Denied
from ..rest import state
from ..tokens import derive

# Addresses that hold a secret of their own, which is checked where they are answered.
OPEN = ("/blobs", "/discovery/", "/msi/")
# Over plain http: what anybody may know, which both SDKs read so; and telemetry, with its own key.
PLAIN = ("/metadata/", "/v2.1/track")

authentication_api = Blueprint("authentication", __name__)


def check_token() -> None:
    """Let nothing in without the token; asked before every request.

    Raises
    ------
    Denied
        If it is missing or wrong.
    """
    if request.path.startswith(PLAIN) and request.endpoint is not None:
        return
    if request.scheme != "https":
        raise Denied("address", "Nothing else is told over plain http.")
    if request.endpoint is not None and request.path.startswith(OPEN):
        return
    offered = request.headers.get("Authorization", "").removeprefix("Bearer ")
    check(offered, state().token)


def check_secret(offered: str, purpose: str) -> None:
    """Let nobody in but who was told the address for `purpose`.

    Raises
    ------
    Denied
        If the secret in it is wrong.
    """
    check(offered, derive(state().token, purpose))


def check(offered: str, expected: str) -> None:
    if not hmac.compare_digest(offered.encode("utf-8", "surrogateescape"), expected.encode()):
        raise Denied("token", "This is not the token of this workspace.")


@authentication_api.route("/msi/<secret>", methods=["GET", "POST"])
def managed_identity(secret: str) -> Response:
    """The endpoint that the SDK asks for a token when no other way to log in was named."""
    check_secret(secret, "msi")
    return jsonify(
        access_token=state().token,
        expires_on=str(int(time.time()) + 24 * 3600),
        token_type="Bearer",
        resource=request.values.get("resource", ""),
    )
