"""The ingestion endpoint of Application Insights, to which services send their log lines.

The exporter of Microsoft's server does not accept the control plane's certificate, so the
endpoint is served over plain http on the loopback. Each item has the service's key. Items about
requests are accepted and dropped, because the containers count requests.
"""

from __future__ import annotations

import hmac
import zlib
from typing import Any

import msgspec
from flask import Blueprint, Response, jsonify, request
from msgspec import Struct, field

from ..bodies import convert
from ..core.endpoints import Endpoint
from ..core.faults import Invalid
from ..rest import endpoints

MAX_BODY = 16 << 20  # bytes of a body, before and after decompression

telemetry_api = Blueprint("telemetry", __name__)


class Data(Struct, rename="camel"):
    base_type: str | None = None
    base_data: dict[str, Any] | None = None


class Item(Struct):
    time: str = ""
    key: str = field(default="", name="iKey")
    data: Data = field(default_factory=Data)


class MessageData(Struct):
    message: str = ""


class Raised(Struct, rename="camel"):
    type_name: str | None = None
    message: str | None = None


class ExceptionData(Struct):
    exceptions: list[Raised] = []


@telemetry_api.post("/v2.1/track")
def track() -> Response:
    request.max_content_length = MAX_BODY  # the sender's key is checked after the body is read
    items = read_items(request.get_data(cache=False))
    accepted = [keep_item(item) for item in items]
    errors = [
        {"index": index, "statusCode": 400, "message": "Invalid instrumentation key"}
        for index, is_accepted in enumerate(accepted)
        if not is_accepted
    ]
    answer = jsonify(itemsReceived=len(items), itemsAccepted=sum(accepted), errors=errors)
    answer.status_code = 400 if errors else 200
    return answer


def read_items(body: bytes) -> list[Item]:
    try:
        if request.headers.get("Content-Encoding") == "gzip":
            unpacking = zlib.decompressobj(wbits=31)
            body = unpacking.decompress(body, MAX_BODY)
        if len(body) >= MAX_BODY:
            raise Invalid(
                "body", f"The body has more than {MAX_BODY} bytes: send the items in several."
            )
        return msgspec.json.decode(body, type=list[Item])
    except (zlib.error, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Invalid("body", f"The body is not a list of telemetry items: {error}") from error


def find_endpoint(key: str) -> Endpoint | None:
    found = None
    for endpoint in endpoints().all():  # all keys are compared, in constant time
        if hmac.compare_digest(endpoint.telemetry.key.encode(), key.encode()):
            found = endpoint
    return found


def keep_item(item: Item) -> bool:
    """Keep the log lines of an item; return False if no service has its key."""
    endpoint = find_endpoint(item.key)
    if endpoint is None:
        return False
    data, telemetry = item.data.base_data or {}, endpoint.telemetry
    match item.data.base_type:
        case "MessageData":
            telemetry.trace(item.time, convert(data, MessageData).message)
        case "ExceptionData":
            for raised in convert(data, ExceptionData).exceptions:
                telemetry.trace(item.time, f"{raised.type_name}: {raised.message}")
    return True
