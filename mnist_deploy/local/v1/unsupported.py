"""Calls of SDK v1 that the local workspace does not support: 501 with the name of the call."""

from __future__ import annotations

import re

from flask import Blueprint, Response, request

from ..core.faults import NotSupported

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# By the URL's path, the call of azureml-core that sends the request.
CALLS = {
    r"/environment/.*/(image|imageoncompute)(/.*)?": "Environment.build, build_local",
    r"/environment/.*/recipe(/.*)?": "Environment.get_image_details",
}

unsupported_api = Blueprint("unsupported", __name__)


@unsupported_api.route("/modelmanagement/<path:path>", methods=METHODS)
@unsupported_api.route("/environment/<path:path>", methods=METHODS)
def reject_call(**_: str) -> Response:
    for pattern, call in CALLS.items():
        if re.fullmatch(pattern, request.path):
            raise NotSupported(call)
    raise NotSupported(f"{request.method} {request.path}")
