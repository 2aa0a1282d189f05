"""The ingestion endpoint of Application Insights: what services tell of themselves.

Over plain http, on the loopback: the exporter of Microsoft's server knows no certificate of
ours. The key of the service, in each item, is the secret.
"""

from __future__ import annotations

import hmac
import re
import zlib
from typing import Any

import msgspec
from flask import Blueprint, Response, jsonify, request
from msgspec import Struct, field

from ..bodies import convert
from ..core.endpoints import Endpoint
from ..core.faults import Invalid
from ..core.telemetry import Request
from ..rest import endpoints

MAX_BODY = 16 << 20  # bytes of a body, as it comes and unpacked
# [days.]hours:minutes:seconds
DURATION = re.compile(r"(?:(\d{1,9})\.)?(\d{1,9}):(\d{1,9}):(\d{1,9})(\.\d{1,9})?")

telemetry_api = Blueprint("telemetry", __name__)


class Data(Struct, rename="camel"):
    base_type: str | None = None
    base_data: dict[str, Any] | None = None


class Item(Struct):
    time: str = ""
    key: str = field(default="", name="iKey")
    data: Data = field(default_factory=Data)


class OwnWords(Struct):
    """What Microsoft's server says of a request: the exporter's own figures are of the telling."""

    duration: str = ""
    success: str | bool = False


class RequestData(Struct):
    properties: OwnWords


class MessageData(Struct):
    message: str = ""


class Raised(Struct, rename="camel"):
    type_name: str | None = None
    message: str | None = None


class ExceptionData(Struct):
    exceptions: list[Raised] = []


@telemetry_api.post("/v2.1/track")
def track() -> Response:
    request.max_content_length = MAX_BODY  # whoever sends has shown no key yet
    items = read_items(request.get_data(cache=False))
    accepted = [take_in(item) for item in items]
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
            raise Invalid("body", f"Telemetry of more than {MAX_BODY} bytes at once.")
        return msgspec.json.decode(body, type=list[Item])
    except (zlib.error, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Invalid("body", f"This is no telemetry: {error}") from error


def find_endpoint(key: str) -> Endpoint | None:
    found = None
    for endpoint in endpoints().all():  # every one is compared
        if hmac.compare_digest(endpoint.telemetry.key.encode(), key.encode()):
            found = endpoint
    return found


def take_in(item: Item) -> bool:
    """Keep what an item says; False if it is of no service here."""
    endpoint = find_endpoint(item.key)
    if endpoint is None:
        return False
    told, telemetry = item.data.base_data or {}, endpoint.telemetry
    match item.data.base_type:
        case "RequestData":
            own = convert(told, RequestData).properties
            success = str(own.success).lower() == "true"
            telemetry.count(Request(seconds_of(own.duration), success))
        case "MessageData":
            telemetry.trace(item.time, convert(told, MessageData).message)
        case "ExceptionData":
            for raised in convert(told, ExceptionData).exceptions:
                telemetry.trace(item.time, f"{raised.type_name}: {raised.message}")
    return True


def seconds_of(duration: str) -> float:
    match = DURATION.fullmatch(duration)
    if match is None:
        return 0.0
    days, hours, minutes, seconds, fraction = match.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds) + float(fraction)
