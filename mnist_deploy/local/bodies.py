"""Converts bodies and queries of requests to typed values, for all REST APIs."""

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
        If it is not valid JSON, or has a wrong type; with the path of the field.
    """
    try:
        return msgspec.json.decode(request.get_data(), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Invalid("body", f"The request's JSON is not valid for this call: {error}") from error


def convert(value: Any, kind: type[T]) -> T:
    """A part of a decoded body, as a value of `kind`.

    Raises
    ------
    Invalid
        As `body` does.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid("body", f"The request's JSON is not valid for this call: {error}") from error


def query(kind: type[T]) -> T:
    """The query of the request's URL, as a value of `kind`.

    Raises
    ------
    Invalid
        If a parameter has a wrong type; with its name.
    """
    try:
        return msgspec.convert(request.args.to_dict(), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("query", f"The query of the request's URL is not valid: {error}") from error


def texts(labels: Labels | None) -> dict[str, str]:
    """Tags and properties with text values: Azure converts numbers to text."""
    return {name: "" if value is None else str(value) for name, value in (labels or {}).items()}
