"""The scoring script and the requirements of MLflow models that are deployed without code."""

from __future__ import annotations

import hashlib
import posixpath
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..core.container_spec import Upload
from ..core.faults import Invalid, NotSupported
from ..core.records import Environment, Model
from ..core.store import Store

SCRIPT = "mlflow_model.py"
MAX_DOCUMENT = 1 << 20  # bytes of an MLmodel or conda file


def prepare_upload(store: Store, model: Model | None) -> Upload:
    """The upload of the scoring script for a model that is deployed without code.

    The path depends on the script's content, so that an equal request has an equal container spec.
    """
    check_model(store, model)
    content = files("mnist_deploy.local.scoring").joinpath(SCRIPT).read_bytes()
    folder = f"LocalUpload/{hashlib.sha256(content).hexdigest()[:32]}"
    store.touch(folder)
    if store.artifact(f"{folder}/{SCRIPT}") is None:
        store.write(f"{folder}/{SCRIPT}", [content])
    return Upload(folder)


def check_model(store: Store, model: Model | None) -> Model:
    """Return the model, if it can be deployed without code.

    Raises
    ------
    NotSupported
        If the model is not of type ``mlflow_model``, or there is none.
    Invalid
        If its folder has no file ``MLmodel``.
    """
    kind = model.other.get("v2", {}).get("model_type", "custom_model") if model else None
    if model is None or kind != "mlflow_model":
        raise NotSupported(
            "a deployment without code_configuration of "
            + (f"a model of type {kind}" if kind else "no model (a custom image)")
            + ", only of a model of type mlflow_model"
        )
    if find_file(store, model, "MLmodel") is None:
        raise Invalid(
            "model",
            f"{model.id} is registered as an mlflow_model, but its path has no file MLmodel. "
            "Expected the folder that mlflow.sklearn.save_model() or log_model() wrote.",
        )
    return model


def read_environment(store: Store, model: Model) -> Environment:
    """The environment of an MLflow model on Azure: the conda file of the python_function flavor."""
    flavors = (read_yaml(store, model, "MLmodel") or {}).get("flavors")
    flavor = flavors.get("python_function") if isinstance(flavors, dict) else None
    named = flavor.get("env") if isinstance(flavor, dict) else None
    name = named.get("conda") if isinstance(named, dict) else named
    conda = read_yaml(store, model, name) if isinstance(name, str) else None
    return Environment(f"mlflow-{model.name}", str(model.version), model.created, conda=conda)


def read_yaml(store: Store, model: Model, name: str) -> dict[str, Any] | None:
    """The mapping that a YAML file of the model holds; None if there is none."""
    file = find_file(store, model, name)
    if file is None or file.stat().st_size > MAX_DOCUMENT:
        return None
    try:
        content = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def find_file(store: Store, model: Model, name: str) -> Path | None:
    """The file `name` in the model's folder that holds ``MLmodel``; None if there is none."""
    found = {path: file for each in model.artifacts for path, file in store.files(each)}
    roots = [posixpath.dirname(path) for path in found if posixpath.basename(path) == "MLmodel"]
    return found.get(posixpath.join(min(roots, key=len), name)) if roots else None
