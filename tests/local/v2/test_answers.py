"""Every answer, against the models that parse it: no field that they do not know, none unread."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from azure.ai.ml._restclient.arm_ml_service import models as rest
from azure.ai.ml._restclient.arm_ml_service._utils.model_base import Model

# Fields of responses that no model of the SDK has, with the reason.
NOT_MODELLED = {
    "Workspace.properties.discoveryUrl": "SDK v1 finds the other APIs there",
    "ComputeResource.properties.createdOn": "KubernetesCompute.created_on is read from it",
}


def deviations(kind: type[Model], answer: dict[str, Any], path: str) -> Iterator[str]:
    """Every field of `answer`, and of what is in it, that its model has not or cannot parse."""
    parsed = kind._deserialize(answer, [])
    names = {each._rest_name: name for name, each in type(parsed)._attr_to_rest_field.items()}
    for field, value in answer.items():
        where = f"{path}.{field}"
        if field not in names:
            if where not in NOT_MODELLED:
                yield f"{where} is in no model"
        elif value is not None:
            read = getattr(parsed, names[field])
            allowed = values_of(type(parsed), names[field])
            if read is None or (isinstance(read, str) and field.endswith("At")):
                yield f"{where}: {value!r} cannot be parsed"
            elif allowed and value not in allowed:
                yield f"{where}: {value!r} is none of {allowed}"
            elif isinstance(read, Model):
                yield from deviations(type(read), value, where)


def values_of(kind: type[Model], name: str) -> set[str]:
    """What an enumeration allows; empty for any other field."""
    annotations = [inspect.get_annotations(each).get(name) for each in kind.__mro__]
    annotation = str(next(filter(None, annotations), ""))
    named = re.search(r"(?:Union\[str,|^str \|) .*_models\.(\w+)", annotation)
    return {each.value for each in getattr(rest, named[1])} if named else set()


ANSWERS = {
    "": rest.Workspace,
    "/models": rest.ModelContainer,
    "/models/weights-v2": rest.ModelContainer,
    "/models/weights-v2/versions": rest.ModelVersion,
    "/models/weights-v2/versions/1": rest.ModelVersion,
    "/environments": rest.EnvironmentContainer,
    "/environments/weights-env-v2": rest.EnvironmentContainer,
    "/environments/weights-env-v2/versions": rest.EnvironmentVersion,
    "/environments/weights-env-v2/versions/1": rest.EnvironmentVersion,
    "/codes/x/versions?hash={hash}": rest.CodeVersion,
    "/datastores": rest.Datastore,
    "/datastores/workspaceblobstore": rest.Datastore,
    "/computes": rest.ComputeResource,
    "/onlineEndpoints": rest.OnlineEndpoint,
    "/onlineEndpoints/shared": rest.OnlineEndpoint,
    "/onlineEndpoints/shared/deployments": rest.OnlineDeployment,
    "/onlineEndpoints/shared/deployments/blue": rest.OnlineDeployment,
    "POST /datastores/workspaceblobstore/listSecrets": rest.DatastoreSecrets,
    "POST /onlineEndpoints/shared/listKeys": rest.EndpointAuthKeys,
    "POST /onlineEndpoints/shared/deployments/blue/getLogs": rest.DeploymentLogs,
    "POST /codes/x/versions/1/startPendingUpload": rest.PendingUploadResponseDto,
    "/models/none": rest.ErrorResponse,
    "/schedules": rest.ErrorResponse,
}


@pytest.fixture(scope="module")
def lookups(client, shared, folder) -> dict[str, str]:
    from azure.ai.ml._utils._asset_utils import get_content_hash
    from azure.ai.ml.entities import KubernetesCompute

    client.compute.begin_create_or_update(KubernetesCompute(name="k8s", namespace="n")).result()
    return {"hash": get_content_hash(str(folder / "code"))}


@pytest.mark.parametrize("request_line", ANSWERS)
def test_sdk_models_parse_every_response(call, shared, lookups, request_line):
    method, path = ("POST", request_line[5:]) if " " in request_line else ("GET", request_line)
    workspace = shared.id.partition("/onlineEndpoints")[0]
    answer = call(method, workspace + path.format(**lookups), json={}).json()
    kind = ANSWERS[request_line]
    found = answer.get("value", [answer])
    assert found, json.dumps(answer)
    assert [each for one in found for each in deviations(kind, one, kind.__name__)] == []


def test_deviation_from_the_sdk_models_is_reported():
    odd = {"id": "i", "x": 1, "properties": {"authMode": "None", "provisioningState": "Done"},
           "systemData": {"createdAt": "yesterday"}}  # fmt: skip
    found = list(deviations(rest.OnlineEndpoint, odd, "E"))
    assert [each.split(":")[0].split(" ")[0] for each in found] == [
        "E.x", "E.properties.authMode", "E.properties.provisioningState", "E.systemData.createdAt"
    ]  # fmt: skip
