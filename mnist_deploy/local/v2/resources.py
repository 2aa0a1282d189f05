"""Azure's resources: their ids, and what every answer carries around the properties."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from flask import request
from msgspec import Struct

from ..bodies import Document, query
from ..core.faults import Invalid
from ..rest import PROVIDER, paginate
from ..tokens import TENANT

Item = TypeVar("Item")

LOCATION = "local"
IDENTITY = {"type": "SystemAssigned", "principalId": TENANT, "tenantId": TENANT}
USER = "local user"
PAGE = 100  # resources in the answer to a list
ASSET_ID = re.compile(
    r"(?:azureml:)?/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
    rf"{re.escape(PROVIDER)}/[^/]+/(\w+)/([^/]+)/versions/([^/]+)",
    re.IGNORECASE,
)


def workspace_names() -> tuple[str, str, str]:
    """(subscription, resource group, workspace), by the names that the request uses."""
    view = request.view_args or {}
    return view["subscription"], view["group"], view["workspace"]


def resource_id(*parts: str) -> str:
    """The id of something in the workspace, as ``("models", name, "versions", version)``."""
    subscription, group, workspace = workspace_names()
    return "/".join(
        [
            f"/subscriptions/{subscription}/resourceGroups/{group}/providers",
            PROVIDER,
            workspace,
            *parts,
        ]
    )


def resource(
    parts: Sequence[str], properties: Document, created: str = "", updated: str = "", **more: Any
) -> Document:
    """What Azure answers of something in the workspace; `parts` as of its id."""
    answer: Document = {
        "id": resource_id(*parts),
        "name": parts[-1],
        "type": "/".join([PROVIDER, *parts[::2]]),
        "properties": properties,
        **more,
    }
    if created:
        answer["systemData"] = {
            "createdBy": USER,
            "createdByType": "User",
            "createdAt": created,
            "lastModifiedBy": USER,
            "lastModifiedByType": "User",
            "lastModifiedAt": updated or created,
        }
    return answer


class Page(Struct, rename={"skip": "$skip"}):
    skip: int = 0


def page(items: Iterable[Item], describe: Callable[[Item], Document]) -> Document:
    """The part of a list that was asked for, and where the rest is."""
    start = max(0, query(Page).skip)
    return paginate(items, describe, start=start, size=PAGE, parameter="$skip")


def parse_asset_id(kind: str, text: str) -> tuple[str, str]:
    """(name, version) of an asset of this workspace, from its id.

    Raises
    ------
    Invalid
        If it is no id of such an asset.
    """
    found = ASSET_ID.fullmatch(text)
    if found is None or found[1].lower() != kind:
        raise Invalid(
            "reference",
            f"{text!r} is no id of a version in {kind} of this workspace. Expected "
            f"/subscriptions/…/workspaces/…/{kind}/NAME/versions/VERSION.",
        )
    return found[2], found[3]
