"""Compare responses with Microsoft's published descriptions of its REST APIs (Swagger 2.0)."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, FormatChecker

DESCRIPTIONS = Path(__file__).resolve().parents[2] / "shared" / "azure-rest-spec"

formats = FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def is_time(text: object) -> bool:
    return not isinstance(text, str) or bool(datetime.fromisoformat(text.replace("Z", "+00:00")))


class Description:
    """One description file: finds the operation of a request and validates the response.

    Beyond JSON Schema the comparison resolves the ``discriminator`` and reports fields that the
    schema of an object does not name.
    """

    def __init__(self, name: str) -> None:
        document = json.loads((DESCRIPTIONS / f"{name}.json").read_text())
        self._definitions = document["definitions"]
        self._operations = {
            path: re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path)), re.IGNORECASE)
            for path in document["paths"]
        }
        self._paths = document["paths"]

    def find(self, path: str) -> str | None:
        """Return the described path that matches a request's path, or None."""
        for described, pattern in self._operations.items():
            if pattern.fullmatch(path):
                return described
        return None

    def deviations(
        self, described: str, method: str, status: int, answer: Any
    ) -> Iterator[tuple[str, str]]:
        """Yield (definition and field, what is wrong) for each deviation of a response."""
        operation = self._paths[described].get(method.lower())
        if operation is None:
            yield described, f"{method} is not described"
            return
        responses = operation["responses"]
        if str(status) not in responses and status < 400:
            yield described, f"{method} is not described to answer {status}"
            return
        response = responses.get(str(status)) or responses["default"]
        if "schema" in response and response["schema"].get("type") != "file":
            yield from self._compare(response["schema"], answer, described)

    def _compare(self, schema: dict, answer: Any, where: str) -> Iterator[tuple[str, str]]:
        schema, name = self._resolve(schema, answer, where)
        # One level at a time: what lies deeper is compared with its own definition.
        for error in Draft4Validator(_shallow(schema), format_checker=formats).iter_errors(answer):
            field = ".".join(str(step) for step in error.path)
            yield f"{name}.{field}".rstrip("."), error.message[:200]
        if isinstance(answer, list) and isinstance(schema.get("items"), dict):
            for entry in answer:
                yield from self._compare(schema["items"], entry, f"{name}[]")
        if not isinstance(answer, dict):
            return
        properties = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        for field, value in answer.items():
            if field in properties:
                yield from self._compare(properties[field], value, f"{name}.{field}")
            elif isinstance(more, dict):
                yield from self._compare(more, value, f"{name}.*")
            elif properties and not more:
                yield f"{name}.{field}", "is not described"

    def _resolve(self, schema: dict, answer: Any, where: str) -> tuple[dict, str]:
        """A schema with its $ref resolved, its subtype chosen and its allOf merged."""
        name = where
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self._definitions[name]
        if "discriminator" in schema and isinstance(answer, dict):
            kind = answer.get(schema["discriminator"])
            for subtype, definition in self._definitions.items():
                named = definition.get("x-ms-discriminator-value") == kind
                if named and self._descends(definition, name):
                    return self._merge(definition), subtype
        return self._merge(schema), name

    def _descends(self, definition: dict, name: str) -> bool:
        """Whether a definition extends the one of that name, perhaps by others between."""
        bases = [part["$ref"].rpartition("/")[2] for part in definition.get("allOf", ())
                 if "$ref" in part]  # fmt: skip
        return name in bases or any(self._descends(self._definitions[b], name) for b in bases)

    def _merge(self, schema: dict) -> dict:
        merged = copy.deepcopy({key: value for key, value in schema.items() if key != "allOf"})
        for part in schema.get("allOf", ()):
            part = self._definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
            part = self._merge(part)
            merged.setdefault("properties", {}).update(part.get("properties") or {})
            merged["required"] = [*merged.get("required", ()), *part.get("required", ())]
        if not merged.get("required"):
            merged.pop("required", None)
        return merged


def _shallow(schema: dict) -> dict:
    """Return a schema without the rules for nested values."""
    kept = {"type", "required", "enum", "format", "minLength", "maxLength", "pattern",
            "minimum", "maximum", "minItems", "maxItems"}  # fmt: skip
    return {key: value for key, value in schema.items() if key in kept}
