"""Filters of run history: the part of OData that azureml-core and azureml-mlflow send."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .faults import Invalid

TOKEN = re.compile(r'\s*(?:(?P<paren>[()])|"(?P<quoted>[^"]*)"|(?P<word>[^\s()"]+))')
OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda found, operand: found == operand,
    "ne": lambda found, operand: found != operand,
    "gt": lambda found, operand: found > operand,
    "ge": lambda found, operand: found >= operand,
    "lt": lambda found, operand: found < operand,
    "le": lambda found, operand: found <= operand,
}
JOINS = ("and", "or")

Fields = Mapping[str, Any]
Predicate = Callable[[Fields], bool]


def parse_filter(text: str) -> Predicate:
    """A function of a run's fields that returns whether the filter `text` selects the run.

    Field names are compared without regard to case. ``Tags/x`` and ``Properties/x`` name entries.
    As on Azure, a comparison with a missing entry is false, even with ``ne``.

    Raises
    ------
    Invalid
        If `text` is not a filter in this syntax.
    """
    parser = _Parser(text)
    predicate = parser.parse_or()
    if parser.tokens:
        raise parser.error()
    return predicate


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                raise self.error()
            self.tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()

    def error(self) -> Invalid:
        return Invalid(
            "filter",
            f"{self.text!r} is not a filter of runs. Expected comparisons like (Status eq Failed), "
            "combined with 'and', 'or' and parentheses.",
        )

    def take(self) -> tuple[str, str]:
        if not self.tokens:
            raise self.error()
        return self.tokens.pop(0)

    def parse_or(self) -> Predicate:
        parts = [self.parse_and()]
        while self.tokens[:1] == [("word", "or")]:
            self.take()
            parts.append(self.parse_and())
        return parts[0] if len(parts) == 1 else lambda run: any(part(run) for part in parts)

    def parse_and(self) -> Predicate:
        parts = [self.parse_operand()]
        while self.tokens[:1] == [("word", "and")]:
            self.take()
            parts.append(self.parse_operand())
        return parts[0] if len(parts) == 1 else lambda run: all(part(run) for part in parts)

    def parse_operand(self) -> Predicate:
        if self.tokens[:1] == [("paren", "(")]:
            self.take()
            inner = self.parse_or()
            if self.take() != ("paren", ")"):
                raise self.error()
            return inner
        (kind, name), (_, operator) = self.take(), self.take()
        value_kind, value = self.take()
        if kind != "word" or operator not in OPERATORS or value_kind == "paren":
            raise self.error()
        while self.tokens and self.tokens[0][0] == "word" and self.tokens[0][1] not in JOINS:
            value += f" {self.take()[1]}"  # azureml-core does not quote times with a space
        operand = None if (value_kind, value) == ("word", "null") else value
        return _comparison(name, operator, operand)


def _comparison(name: str, operator: str, operand: str | None) -> Predicate:
    first, _, entry = name.partition("/")

    def compare(run: Fields) -> bool:
        fields = {key.lower(): value for key, value in run.items()}
        found = fields.get(first.lower())
        if entry:
            if not isinstance(found, Mapping) or entry not in found:
                return False
            found = found[entry]
        is_null = found in (None, "")
        if is_null or operand is None:  # null equals null only, and has no order
            is_equal = is_null and operand is None
            return {"eq": is_equal, "ne": not is_equal}.get(operator, False)
        return OPERATORS[operator](str(found), operand)

    return compare
