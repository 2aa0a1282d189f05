"""What is registered in a mocked workspace: models, their files, environments and clusters.

`Models`, `Assets` and `Artifacts` answer in the place of the SDK's REST clients of these
names: a method bears the name and takes the arguments of the one that it replaces.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from azureml.exceptions import WebserviceException

from . import sdk

Document = dict[str, Any]
Reply = tuple[int, Document, dict[str, str]]  # status, body, headers

BLOBS = f"{sdk.URL}/blobs/"
# What Azure takes for what is not asked of a cluster.
CLUSTER_DEFAULTS: Document = {
    "agentCount": 3,
    "agentVmSize": "Standard_D3_v2",
    "clusterPurpose": "FastProd",
    "loadBalancerType": "PublicIp",
    **dict.fromkeys(("clusterFqdn", "loadBalancerSubnet", "systemServices")),
}
_FIELDS = {"kvTags": "kv_tags", "properties": "properties", "description": "description"}


class Models:
    """Registered models, the oldest first.

    Parameters
    ----------
    is_in_use : callable
        Whether a service runs the model of this id: then it cannot be deleted.
    """

    def __init__(self, is_in_use: Callable[[str], bool]) -> None:
        self._documents: list[Any] = []
        self._last_version: dict[str, int] = {}
        self._is_in_use = is_in_use

    def register_model(
        self,
        name: str,
        url: str,
        tags: dict[str, str] | None = None,
        properties: dict[str, str] | None = None,
        datasets: Any = None,
        resource_requirements: Any = None,
        mime_type: str = "application/json",
        version: int | None = None,  # SDK v2 may choose it
        **fields: Any,
    ) -> Any:
        if datasets or resource_requirements:
            raise sdk.not_simulated("Model.register with datasets or a resource configuration")
        last = self._last_version.get(name, 0)
        version = version or last + 1
        self._last_version[name] = max(last, version)
        fields |= {"id": f"{name}:{version}", "version": version, "datasets": []}
        fields |= {"kv_tags": tags or {}, "properties": properties or {}}
        document = sdk.model_document(name, url, mime_type, **fields)
        self._documents.append(document)
        return copy.deepcopy(document)

    def get_by_id(self, model_id: str) -> Any:
        return copy.deepcopy(self._find(model_id))

    def query(
        self,
        name: str | None = None,
        framework: str | None = None,
        tags: str | None = None,
        properties: str | None = None,
        run_id: str | None = None,
        latest_version_only: bool = False,
        **_: Any,
    ) -> Iterator[Any]:
        seen = set()
        for each in reversed(self._documents):
            if (
                name in (None, each.name)
                and framework in (None, each.framework)
                and run_id in (None, each.run_id)
                and has_all(each.kv_tags, tags)
                and has_all(each.properties, properties)
                and not (latest_version_only and each.name in seen)
            ):
                seen.add(each.name)
                yield copy.deepcopy(each)

    def patch(self, model_id: str, body: list[Document]) -> None:
        document = self._find(model_id)
        for change in body:
            field = _FIELDS.get(change["path"].strip("/"))
            if field is None:
                raise sdk.not_simulated(f"Model.update of {change['path']}")
            setattr(document, field, copy.deepcopy(change["value"]))

    def delete(self, model_id: str) -> None:
        document = self._find(model_id)
        if self._is_in_use(model_id):
            raise WebserviceException(f"DeletionRequired: a service uses the model {model_id}.")
        self._documents.remove(document)

    def _find(self, model_id: str) -> Any:
        found = next((each for each in self._documents if each.id == model_id), None)
        if found is None:
            raise sdk.model_not_found(model_id)
        return found


class Assets:
    """Which files belong to a model."""

    def __init__(self) -> None:
        self._assets: dict[str, Any] = {}

    def create_asset(self, model_name: str, artifact_values: list[Document], *_: Any) -> Any:
        prefixes = [each["prefix"] for each in artifact_values]
        asset = sdk.asset(model_name, uuid.uuid4().hex, prefixes)
        self._assets[asset.id] = asset
        return asset

    def get_asset_by_id(self, asset_id: str) -> Any:
        return self._assets[asset_id]


class Artifacts:
    """The files themselves."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def upload_files(
        self, paths: list[str], origin: str, container: str, names: list[str], **_: Any
    ) -> None:
        for path, name in zip(paths, names, strict=True):
            self.contents[f"{origin}/{container}/{name}"] = Path(path).read_bytes()

    def upload_artifact_from_path(
        self, path: str, origin: str, container: str, name: str
    ) -> SimpleNamespace:
        self.upload_files([path], origin, container, names=[name])
        uploaded = SimpleNamespace(path=name, artifact_id=f"{origin}/{container}/{name}")
        return SimpleNamespace(artifacts={name: uploaded})

    def get_files_by_artifact_prefix_id(self, prefix: str) -> list[tuple[str, str]]:
        return [(key.split("/", 2)[2], BLOBS + key) for key in self.under(prefix)]

    def under(self, prefix: str) -> list[str]:
        """The ids of the file of that id, or of all in the folder of that id."""
        return [key for key in self.contents if key == prefix or key.startswith(f"{prefix}/")]


class Environments:
    """Registered environments; the SDK asks for them over plain HTTP."""

    def __init__(self) -> None:
        self._definitions: dict[str, dict[str, Document]] = {}

    def reply(self, method: str, path: list[str], body: Any) -> Reply:
        """Answer a request below ``…/environments``."""
        match method, *path:
            case "GET", "":
                newest = [list(versions.values())[-1] for versions in self._definitions.values()]
                return 200, {"value": newest}, {}
            case "PUT", name:
                return 200, self._register(name, None, body), {}
            case "PUT", name, "versions", version:
                return 200, self._register(name, version, body), {}
            case "GET", name, *rest if rest[:1] in ([], ["versions"]):
                versions = self._definitions.get(name, {})
                version = rest[1] if rest else next(reversed(versions), "")
                if version in versions:
                    return 200, versions[version], {}
                return 404, {"message": f"There is no environment {'/'.join(path)}."}, {}
        raise sdk.not_simulated(f"{method} environments/{'/'.join(path)}")

    def versions(self, name: str) -> list[str]:
        """The newest first."""
        return [*reversed(self._definitions.get(name, {}))]

    def _register(self, name: str, version: str | None, body: Document) -> Document:
        # The SDK sends some names capitalised, but reads all of them in camel case.
        definition = {key[:1].lower() + key[1:]: value for key, value in body.items()}
        versions = self._definitions.setdefault(name, {})
        newest = next(reversed(versions), None)
        if version is None:
            counted = [int(each) for each in versions if each.isdigit()]
            version = str(max(counted, default=0) + 1)
            if newest and versions[newest] == {**definition, "name": name, "version": newest}:
                version = newest  # as on Azure: the same definition is no new version
        versions.pop(version, None)
        versions[version] = {**definition, "name": name, "version": version}
        return versions[version]


class Clusters:
    """Clusters of Kubernetes, created or attached; the SDK asks for them over plain HTTP.

    Parameters
    ----------
    services_on : callable
        The names of the services that run on a cluster: then it cannot be deleted.
    """

    def __init__(self, services_on: Callable[[str], list[str]]) -> None:
        self._documents: dict[str, Document] = {}
        self._services_on = services_on

    @property
    def names(self) -> list[str]:
        return list(self._documents)

    def left(self) -> list[str]:
        """Those that were created, and not only attached: they are paid for."""
        documents = self._documents.items()
        return [name for name, each in documents if not each["properties"]["isAttachedCompute"]]

    def reply(self, method: str, path: list[str], body: Any) -> Reply:
        """Answer a request below ``…/computes``."""
        done = {"Azure-AsyncOperation": f"{sdk.URL}{sdk.SCOPE}/computes/any/operation"}
        match method, *path:
            case ("GET",):
                return 200, {"value": list(self._documents.values())}, {}
            case "GET", _, "operation":
                return 200, {"status": "Succeeded"}, {}
            case _, name if method != "PUT" and name not in self._documents:
                return 404, {"error": {"message": f"There is no compute target {name}."}}, {}
            case "GET", name:
                return 200, self._documents[name], {}
            case "PUT", name if body["properties"]["computeType"] == "AKS":
                self._documents[name] = self._describe(name, body)
                return 201, self._documents[name], done
            case "DELETE", name if users := self._services_on(name):
                message = f"{name} is in use: first delete {', '.join(users)}."
                return 409, {"error": {"message": message}}, {}
            case "DELETE", name:
                del self._documents[name]
                return 202, {}, done
        raise sdk.not_simulated(f"{method} computes/{'/'.join(path)}")

    def _describe(self, name: str, asked: Document) -> Document:
        """What the SDK's parser asks of Azure's answer."""
        properties = {"description": None, "resourceId": None, **asked["properties"]}
        inner = filled(properties.get("properties") or {}, CLUSTER_DEFAULTS)
        properties |= {"isAttachedCompute": bool(properties["resourceId"]), "properties": inner}
        properties |= {"provisioningState": "Succeeded", "provisioningErrors": None}
        where = {"id": f"{sdk.SCOPE}/computes/{name}", "name": name, "location": "mocked"}
        return {**where, "tags": {}, "properties": properties}


def has_all(labels: Mapping[str, str] | None, wanted: str | None) -> bool:
    """Whether the labels have all of ``key,key=value``, the SDK's form of a filter."""
    labels = labels or {}
    for entry in filter(None, (wanted or "").split(",")):
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def filled(asked: Document, defaults: Document) -> Document:
    """What is asked for, and the defaults for what is missing or null, within objects as well."""
    merged = dict(asked)
    for field, default in defaults.items():
        given = asked.get(field)
        if isinstance(default, dict):
            merged[field] = filled(given or {}, default)
        else:
            merged[field] = default if given is None else given
    return merged
