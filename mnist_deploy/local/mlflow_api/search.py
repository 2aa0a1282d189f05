"""Filters and sort orders of MLflow's searches.

Supported is the part of SQL that MLflow's documentation lists:
https://mlflow.org/docs/latest/ml/search/search-runs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..bodies import Document
from ..core.faults import Invalid

Fields = Mapping[str, Mapping[str, Any]]  # values by kind (metrics, params, …) and name

KINDS = {
    **dict.fromkeys(("metric", "metrics"), "metrics"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "params"),
    **dict.fromkeys(("tag", "tags"), "tags"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attributes"),
}
FIELD = rf"""(?:(?P<kind>{"|".join(KINDS)})\.)?(?P<name>`[^`]+`|"[^"]+"|[^\s=<>!'"]+)"""
COMPARISON = re.compile(
    rf"""\s*{FIELD}\s*(?P<operator>>=|<=|!=|=|<|>|\b(?:NOT\s+)?IN\b|\bI?LIKE\b)\s*
    (?P<value>'[^']*'|"[^"]*"|\([^)]*\)|[-+.\w]+)\s*(?P<join>AND\s|$)""",
    re.IGNORECASE | re.VERBOSE,
)
ORDER = re.compile(rf"\s*{FIELD}(?:\s+(?P<direction>ASC|DESC))?\s*", re.IGNORECASE)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda found, operand: found == operand,
    "!=": lambda found, operand: found != operand,
    ">": lambda found, operand: found > operand,
    ">=": lambda found, operand: found >= operand,
    "<": lambda found, operand: found < operand,
    "<=": lambda found, operand: found <= operand,
    "IN": lambda found, operand: found in operand,
    "NOT IN": lambda found, operand: found not in operand,
    "LIKE": lambda found, operand: matches(found, operand, 0),
    "ILIKE": lambda found, operand: matches(found, operand, re.IGNORECASE),
}


def matches(found: str, pattern: str, flags: int) -> bool:
    expression = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in pattern)
    return re.fullmatch(expression, found, flags | re.DOTALL) is not None


def read_field(match: re.Match[str]) -> tuple[str, str]:
    kind = KINDS[(match["kind"] or "attribute").lower()]
    name = match["name"].strip('`"')
    if kind == "attributes":
        name = {"created": "start_time", "run name": "run_name"}.get(name.lower(), name)
    return kind, name


def parse_filter(text: str) -> Callable[[Fields], bool]:
    """A function of a record's fields that returns whether the filter `text` selects the record.

    Raises
    ------
    Invalid
        If `text` is not a filter in MLflow's syntax.
    """
    tests, position = [], 0
    while text[position:].strip():
        match = COMPARISON.match(text, position)
        if match is None:
            raise Invalid(
                "filter",
                f"{text!r} is not a filter of MLflow. Expected comparisons such as "
                "metrics.accuracy > 0.9 and params.C = '1', joined by 'and'.",
            )
        tests.append(parse_comparison(match))
        position = match.end()
    return lambda fields: all(test(fields) for test in tests)


def parse_comparison(match: re.Match[str]) -> Callable[[Fields], bool]:
    kind, name = read_field(match)
    operator, sent = " ".join(match["operator"].upper().split()), match["value"]
    operand: Any = sent.strip("'\"")
    if operator.endswith("IN"):
        operand = [each.strip(" '\"") for each in sent.strip("()").split(",")]

    def test(fields: Fields) -> bool:
        found = fields[kind].get(name)
        if found is None:
            return False
        if isinstance(found, int | float) and not operator.endswith(("IN", "LIKE")):
            try:
                return OPERATORS[operator](float(found), float(operand))
            except ValueError:
                raise Invalid(
                    "filter",
                    f"{name} is compared with {sent}: expected a number, like {name}.",
                ) from None
        return OPERATORS[operator](str(found), operand)

    return test


def select_documents(
    documents: Iterable[Document],
    fields_of: Callable[[Document], Fields],
    is_selected: Callable[[Fields], bool],
    orders: list[str],
) -> list[Document]:
    """The documents whose fields a filter selects, sorted.

    Raises
    ------
    Invalid
        If an order is not valid, as for `sort_fields`, or a value does not fit the filter.
    """
    found = [(fields_of(each), each) for each in documents]
    found = [pair for pair in found if is_selected(pair[0])]
    sort_fields(found, orders)
    return [document for _, document in found]


def sort_fields(found: list[tuple[Fields, Any]], orders: list[str]) -> None:
    """Sort pairs of fields and record in place; records without the field come last.

    Raises
    ------
    Invalid
        If an order is not the name of a field, optionally followed by ASC or DESC.
    """
    for text in reversed(orders):
        match = ORDER.fullmatch(text)
        if match is None:
            raise Invalid(
                "order", f"order_by has {text!r}: expected an order such as metrics.accuracy DESC."
            )
        kind, name = read_field(match)
        is_descending = (match["direction"] or "ASC").upper() == "DESC"

        def key(pair: tuple[Fields, Any], kind: str = kind, name: str = name) -> tuple[float, str]:
            value = pair[0][kind].get(name)
            number = value if isinstance(value, int | float) else 0.0
            return number, str(value)

        present = [pair for pair in found if pair[0][kind].get(name) is not None]
        missing = [pair for pair in found if pair[0][kind].get(name) is None]
        found[:] = sorted(present, key=key, reverse=is_descending) + missing
