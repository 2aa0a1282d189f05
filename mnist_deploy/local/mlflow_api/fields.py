"""What several of MLflow's calls have in common: entries, times, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from ..core.faults import Invalid
from ..core.runs import Runs
from ..rest import state

T = TypeVar("T")
API = "/api/2.0/mlflow"
DEFAULT_EXPERIMENT = ("0", "Default")  # the id that MLflow sends where no experiment was chosen
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
    """Of a time in ISO 8601; 0 where there is none."""
    return int(datetime.fromisoformat(time).timestamp() * 1000) if time else 0


def iso_time(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat()


def select_page(items: list[T], size: int, token: str | None) -> tuple[list[T], dict[str, str]]:
    """A part of a list, and the field of the answer that leads to the next one."""
    if not (token or "0").isdecimal():
        raise Invalid("page token", f"{token!r} is not a page token of this workspace.")
    start = int(token or "0")
    end = start + size
    return items[start:end], {"next_page_token": str(end)} if end < len(items) else {}
