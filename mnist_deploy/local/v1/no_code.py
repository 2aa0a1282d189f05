"""Deployments of scikit-learn models without an inference config: their script and environment."""

from __future__ import annotations

import hashlib
from importlib import metadata
from importlib.resources import files

from msgspec import Struct

from ..bodies import Document, convert
from ..core.faults import Invalid, NotSupported
from ..rest import store
from .models import find_model

SCRIPT = "no_code.py"


class NoCodeRequest(Struct, rename="camel"):
    model_ids: list[str] | None = None


def lacks_script(request: Document) -> bool:
    """Whether the SDK's environmentImageRequest names models and nothing else."""
    return "driverProgram" not in request


def resources(request: Document) -> Document:
    """The registered resources of a model that is deployed without a script; else empty."""
    models = convert(request, NoCodeRequest).model_ids
    if not lacks_script(request) or not models:
        return {}
    return find_model(models[0]).other.get("v1", {}).get("resourceRequirements") or {}


def add_script(request: Document) -> Document:
    """Add this package's scoring script and an environment to a request without a script.

    Raises
    ------
    Invalid
        If the request does not have exactly one model.
    NotSupported
        If the model's framework is not scikit-learn.
    """
    models = convert(request, NoCodeRequest).model_ids or []
    if len(models) != 1:
        raise Invalid(
            "service",
            f"A deployment without an inference config has {len(models)} models: exactly one is "
            "expected.",
        )
    registered = find_model(models[0]).other.get("v1", {})
    framework = registered.get("framework")
    if framework != "ScikitLearn":
        raise NotSupported(
            f"a deployment without an inference config of a model of framework {framework}, "
            "only of ScikitLearn"
        )
    script = files("mnist_deploy.local.scoring").joinpath(SCRIPT).read_bytes()
    # The path depends on the content, so that an equal request has an equal container spec.
    path = f"LocalUpload/{hashlib.sha256(script).hexdigest()[:32]}/{SCRIPT}"
    if store().artifact(path) is None:
        store().write(path, [script])
    store().touch(path)
    version = registered.get("frameworkVersion") or metadata.version("scikit-learn")
    pip = ["azureml-defaults", "joblib", f"scikit-learn=={version}"]
    return request | {
        "driverProgram": SCRIPT,
        "assets": [{"id": SCRIPT, "url": f"aml://artifact/{path}"}],
        "environment": {"python": {"condaDependencies": {"dependencies": [{"pip": pip}]}}},
    }
