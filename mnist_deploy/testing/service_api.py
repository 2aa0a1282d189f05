"""The requests that the SDK sends about services, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .services import Document, MockedService, Plan, new_key

Reply = tuple[int, Document, dict[str, str]]  # status, body, headers

CHANGEABLE = ("kvTags", "properties", "description", "authEnabled")


class ServiceApi:
    """Every service of one mocked workspace.

    Parameters
    ----------
    find_models : callable
        From model ids to what a service says of its models.
    plan_for : callable
        From a service's name to how its deployment is to turn out.
    """

    def __init__(
        self,
        find_models: Callable[[list[str]], list[Document]],
        plan_for: Callable[[str], Plan],
    ) -> None:
        self.services: dict[str, MockedService] = {}
        self._find_models = find_models
        self._plan_for = plan_for

    def reply(self, method: str, path: list[str], query: Mapping[str, str], body: Any) -> Reply:
        match method, *path:
            case "POST", "services", "validate", "name", name if name in self.services:
                message = f"There is a service {name} already. Delete it, or overwrite it."
                return 200, {"error": {"message": message}}, {}
            case "POST", "services", "validate", *_:
                return 200, {}, {}
            case "POST", "services":
                return self._create(body)
            case "GET", "services":
                found = [each for each in self.services.values() if is_wanted(each, query)]
                return 200, {"value": [each.describe() for each in found]}, {}
            case _, "services", name, *_ if name not in self.services:
                return (204 if method == "DELETE" else 404), {"message": f"no service {name}"}, {}
            case _, "services" | "operations", name, *rest if name in self.services:
                return self._reply_about(self.services[name], method, path[0], rest, query, body)
        raise not_simulated(f"{method} {'/'.join(path)}")

    def _reply_about(
        self,
        service: MockedService,
        method: str,
        what: str,
        rest: list[str],
        query: Mapping[str, str],
        body: Any,
    ) -> Reply:
        match method, what, *rest:
            case "GET", "operations":
                service.get_on()
                return 200, service.describe_operation(), {}
            case "GET", "services":
                document = service.describe()
                service.get_on()  # so that the next look finds it settled
                return 200, document, {}
            case "GET", "services", "logs":
                tail = service.lines[-int(query.get("tail", 5000)) :]
                return 200, {"content": "\n".join(tail)}, {}
            case "POST", "services", "listkeys":
                return 200, dict(service.keys), {}
            case "POST", "services", "regenerateKeys":
                field = {"Primary": "primaryKey", "Secondary": "secondaryKey"}[body["keyType"]]
                service.keys[field] = body.get("keyValue") or new_key()
                return accepted(service)
            case "PATCH", "services":
                return self._update(service, body)
            case "DELETE", "services":
                del self.services[service.name]
                return 200, {}, {}
        raise not_simulated(f"{method} {what}/{'/'.join(rest)}")

    def _create(self, asked: Document) -> Reply:
        name = asked["name"]
        if asked["computeType"] != "ACI":
            raise not_simulated(f"a service of compute type {asked['computeType']}")
        service = self.services.setdefault(name, MockedService(name))
        model_ids = asked["environmentImageRequest"].get("modelIds") or []
        service.deploy(asked, self._find_models(model_ids), self._plan_for(name))
        return accepted(service)

    def _update(self, service: MockedService, changes: list[Document]) -> Reply:
        for change in changes:
            field, _, entry = change["path"].strip("/").partition("/")
            if field not in CHANGEABLE:
                raise not_simulated(f"AciWebservice.update of {field}")
            old = service.asked.get(field) or {}
            service.asked[field] = {**old, entry: change["value"]} if entry else change["value"]
        return accepted(service)


def accepted(service: MockedService) -> Reply:
    return 202, {}, {"Operation-Location": f"/operations/{service.name}"}


def is_wanted(service: MockedService, query: Mapping[str, str]) -> bool:
    return (
        query.get("computeType", "ACI").upper() == "ACI"
        and has_all(service.asked.get("kvTags"), query.get("tags"))
        and has_all(service.asked.get("properties"), query.get("properties"))
        and query.get("modelId", "") in ("", *(model["id"] for model in service.models))
        and query.get("modelName", "") in ("", *(model["name"] for model in service.models))
    )


def has_all(labels: Mapping[str, str] | None, wanted: str | None) -> bool:
    """Whether the labels have all of ``key,key=value``, the SDK's form of a filter."""
    labels = labels or {}
    for entry in filter(None, (wanted or "").split(",")):
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def not_simulated(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"mocked_workspace does not simulate {what}. The fixture local_workspace runs the genuine "
        "SDK on a small control plane and knows more."
    )
