"""Profiles of models: `Model.profile` and `ModelProfile` of azureml-core."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal

import psutil
from flask import Blueprint, Response, jsonify
from msgspec import Struct, field

from ..bodies import Document, body, query
from ..core.faults import Invalid, NotFound, NotSupported
from ..core.profiles import Profiler, id_of, recommend_cpu, recommend_memory
from ..core.records import Profile, now
from ..rest import paginate, state, store
from .artifacts import content_uri
from .container_specs import make_container_spec
from .datasets import get_saved_dataset
from .models import MMS, NAME
from .operations import make_accepted_response
from .run_history import workspace_scope

MIN_CPU, MAX_CPU = 0.1, 3.5  # the limits in azureml.core.profile
MIN_MEMORY, MAX_MEMORY = 0.1, 15.0
FAILURE_STATUS = 400
MAX_PAGE = 200

profile_api = Blueprint("profiles", __name__)


class Requirements(Struct, rename="camel"):
    cpu: float | None = None
    memory: float | None = field(default=None, name="memoryInGB")


class ProfileRequest(Struct, rename="camel"):
    name: str
    input_dataset_id: str
    environment_image_request: dict[str, Any]
    description: str | None = None
    container_resource_requirements: Requirements | None = None


class ProfileQuery(Struct, rename="camel"):
    name: str | None = None
    description: str | None = None
    count: int = MAX_PAGE
    skip: int = field(default=0, name="$skipToken")
    order_by: Literal["CreatedAtDesc", "CreatedAtAsc", "UpdatedAtDesc", "UpdatedAtAsc"] = (
        "CreatedAtDesc"
    )


@profile_api.post(f"{MMS}/profiles")
def create_profile(**_: str) -> Response:
    """Measure a script and its models with the rows of a data set."""
    requested = body(ProfileRequest)
    if not state().has(Profiler):
        raise NotSupported("Model.profile in a mocked workspace")
    if not NAME.fullmatch(requested.name):
        raise Invalid(
            "profile name",
            f"{requested.name!r} is not a valid profile name. Expected letters, digits, '.', '_' "
            "and '-', beginning with a letter or a digit.",
        )
    dataset = get_saved_dataset(requested.input_dataset_id)
    if dataset.kind != "tabular":
        raise Invalid(
            "input dataset",
            "input_dataset is not tabular: expected a data set with a request body in each row.",
        )
    sizes = requested.container_resource_requirements or Requirements()
    cpu = resolve_size("cpu", sizes.cpu, MIN_CPU, MAX_CPU, float(os.cpu_count() or 1))
    machine = round(psutil.virtual_memory().total / 2**30, 1)
    memory = resolve_size("memory_in_gb", sizes.memory, MIN_MEMORY, MAX_MEMORY, machine)
    spec = make_container_spec(requested.environment_image_request)
    spec = dataclasses.replace(spec, cpu_cores=cpu, memory_gb=memory)
    profile = Profile(
        requested.name,
        0,
        now(),
        dataset.name,
        tuple(model.id for model in spec.models),
        cpu,
        memory,
        description=requested.description,
        other={"v1": {"environment": requested.environment_image_request.get("environment")}},
    )
    scope = workspace_scope()
    variables = {
        "AZUREML_ARM_SUBSCRIPTION": scope["subscription"],
        "AZUREML_ARM_RESOURCEGROUP": scope["group"],
        "AZUREML_ARM_WORKSPACE_NAME": scope["workspace"],
    }
    return make_accepted_response(state().part(Profiler).submit(profile, spec, variables))


def resolve_size(
    name: str, requested: float | None, minimum: float, maximum: float, machine: float
) -> float:
    """Return the requested size; default: the largest that Azure allows and this machine has.

    Raises
    ------
    Invalid
        If the requested size is out of range.
    """
    size = min(maximum, machine) if requested is None else requested
    if not minimum <= size <= maximum:
        raise Invalid("resources", f"{name} is {size:g}: expected {minimum:g} to {maximum:g}.")
    return size


@profile_api.get(f"{MMS}/profiles")
def list_profiles(**_: str) -> Response:
    requested = query(ProfileQuery)
    if requested.count < 1 or requested.skip < 0:
        raise Invalid("query", "Expected count of at least 1 and $skipToken of at least 0.")
    found = [
        profile
        for profile in store().all(Profile)
        if requested.name in (None, profile.name)
        and requested.description in (None, profile.description)
    ]
    if requested.name is not None and not found:  # the SDK reads the first list item
        raise NotFound("profile", requested.name)
    if requested.order_by.endswith("Asc"):
        found.reverse()
    size = min(requested.count, MAX_PAGE)
    page = paginate(
        found, serialize_profile, start=requested.skip, size=size, parameter="$skipToken"
    )
    return jsonify(page)


def serialize_profile(profile: Profile) -> Document:
    answer: Document = {
        "id": id_of(profile),
        "name": profile.name,
        "description": profile.description,
        "createdTime": profile.created,
        "state": profile.state,
        "inputDatasetId": profile.dataset,
        "containerResourceRequirements": {"cpu": profile.cpu, "memoryInGB": profile.memory_gb},
        "requestedQueriesPerSecond": None,  # requests are sent one after the other
        "modelIds": list(profile.models),
        "environment": profile.other.get("v1", {}).get("environment"),
    }
    if profile.measured:
        answer |= serialize_measurements(profile.measured)
    if profile.error:
        answer["error"] = {
            "code": profile.error["code"],
            "statusCode": FAILURE_STATUS,
            "message": profile.error["message"],
            "details": [],
        }
    if profile.artifacts:
        answer["errorLogsUri"] = content_uri(profile.artifacts[0], "read")
    return answer


def serialize_measurements(measured: Document) -> Document:
    latencies = measured["latencies"]
    return {
        "totalQueries": measured["queries"],
        "successQueries": measured["succeeded"],
        "successRate": 100 * measured["succeeded"] / measured["queries"],
        "measuredQueriesPerSecond": measured["queries"] / measured["seconds"],
        "averageLatencyInMs": latencies["mean"],
        "latencyPercentile50InMs": latencies["p50"],
        "latencyPercentile90InMs": latencies["p90"],
        "latencyPercentile95InMs": latencies["p95"],
        "latencyPercentile99InMs": latencies["p99"],
        "latencyPercentile999InMs": latencies["p999"],
        "maxUtilizedCpu": measured["cores"],
        "maxUtilizedMemoryInGB": measured["peak_memory"] / 2**30,
        "recommendedCpu": recommend_cpu(measured),
        "recommendedMemoryInGB": recommend_memory(measured),
    }
