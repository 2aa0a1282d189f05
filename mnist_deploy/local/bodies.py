"""What a request carries, checked and typed: the same for every REST."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from flask import request

from .core.faults import Invalid

T = TypeVar("T")
Document = dict[str, Any]
Labels = dict[str, str | int | float | bool | None]  # tags and properties, as they are sent


def body(kind: type[T]) -> T:
    """The JSON of the request, as a value of `kind`.

    Raises
    ------
    Invalid
        With what is wrong in it, and where.
    """
    try:
        return msgspec.json.decode(request.get_data(), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Invalid("body", f"The request's JSON is not what this call takes: {error}") from error


def convert(value: Any, kind: type[T]) -> T:
    """A part of a body that could be understood only later, as a value of `kind`.

    Raises
    ------
    Invalid
        As `body` does.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid("body", f"The request's JSON is not what this call takes: {error}") from error


def query(kind: type[T]) -> T:
    """The query of the request's URL, as a value of `kind`.

    Raises
    ------
    Invalid
        With what is wrong in it.
    """
    try:
        return msgspec.convert(request.args.to_dict(), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("query", f"The query of the request's URL is wrong: {error}") from error


def texts(labels: Labels | None) -> dict[str, str]:
    """Tags and properties as Azure keeps them: it makes texts of numbers."""
    return {name: "" if value is None else str(value) for name, value in (labels or {}).items()}
