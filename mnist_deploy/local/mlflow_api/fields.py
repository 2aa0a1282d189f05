"""Fields that several calls of MLflow share: entries, times and pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from ..core.faults import Invalid
from ..core.runs import Runs
from ..rest import state

T = TypeVar("T")
API = "/api/2.0/mlflow"
DEFAULT_EXPERIMENT = ("0", "Default")  # id and name; MLflow sends the id if none was chosen
MAX_TIME = 253402300799000  # the last millisecond of the year 9999

Milliseconds = Annotated[int, Meta(ge=0, le=MAX_TIME)]
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
PageSize = Annotated[int, Meta(ge=1, le=50000)]


class Entry(Struct):
    """A tag or a parameter."""

    key: str
    value: str = ""


def runs() -> Runs:
    return state().part(Runs)


def entries(values: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"key": name, "value": "" if value is None else str(value)}
        for name, value in values.items()
    ]


def milliseconds(time: str) -> int:
    """A time in ISO 8601 as milliseconds since the epoch; 0 for an empty text."""
    return int(datetime.fromisoformat(time).timestamp() * 1000) if time else 0


def iso_time(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat()


def select_page(items: list[T], size: int, token: str | None) -> tuple[list[T], dict[str, str]]:
    """One page of a list, and the field ``next_page_token`` if another page follows."""
    if not (token or "0").isdecimal():
        raise Invalid(
            "page token",
            f"page_token is {token!r}: expected the next_page_token of the previous response.",
        )
    start = int(token or "0")
    end = start + size
    return items[start:end], {"next_page_token": str(end)} if end < len(items) else {}
