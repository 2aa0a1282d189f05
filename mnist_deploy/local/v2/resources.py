"""Azure's schema of resources: ids, pages, and the fields around the properties."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, TypeVar

from flask import request
from msgspec import Meta, Struct

from ..bodies import Document, query
from ..core.faults import Invalid, NotSupported
from ..rest import PROVIDER, next_link, paginate
from ..tokens import TENANT

Item = TypeVar("Item")

LOCATION = "local"
SYSTEM_IDENTITY = {"type": "SystemAssigned", "principalId": TENANT, "tenantId": TENANT}
USER = "local user"
PAGE = 500  # resources in the answer to a list
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
    """The id of a resource of the workspace, for instance of ("models", name, "versions", "1")."""
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
    """A resource of the workspace in Azure's schema; `parts` are the parts of its id."""
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


class PageQuery(Struct, rename={"skip": "$skip", "token": "$skiptoken"}):
    skip: Annotated[int, Meta(ge=0)] = 0
    token: Annotated[int, Meta(ge=0, le=10**18)] | None = None


def read_page_token() -> int | None:
    """The position in the store at which the previous page ended; None for the first page."""
    return query(PageQuery).token


def serialize_page(
    items: Iterator[tuple[int, Item]], serialize: Callable[[Item], Document]
) -> Document:
    """The first items of a scan of the store, and the link to the next page."""
    found = list(islice(items, PAGE + 1))
    answer: Document = {"value": [serialize(item) for _, item in found[:PAGE]]}
    if len(found) > PAGE:
        answer["nextLink"] = next_link("$skiptoken", found[PAGE - 1][0])
    return answer


def serialize_list(items: Iterable[Item], serialize: Callable[[Item], Document]) -> Document:
    """The page of a list in memory that was requested, and the link to the next page."""
    start = query(PageQuery).skip
    return paginate(items, serialize, start=start, size=PAGE, parameter="$skip")


def parse_asset_id(kind: str, text: str) -> tuple[str, str]:
    """(name, version) of an asset of this workspace, from its id.

    Raises
    ------
    Invalid
        If the text is not the id of such an asset.
    """
    found = ASSET_ID.fullmatch(text)
    if found is None or found[1].lower() != kind:
        raise Invalid(
            "reference",
            f"{text!r} is not the id of a version in {kind} of this workspace. Expected "
            f"/subscriptions/…/workspaces/…/{kind}/NAME/versions/VERSION.",
        )
    return found[2], found[3]


def reject_registry_reference(reference: str) -> None:
    """Raise `NotSupported` for an asset of a registry."""
    if reference.startswith(("azureml://registries", "azureml:")):
        raise NotSupported(f"{reference}: assets of registries")
