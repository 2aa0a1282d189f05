"""What is certain to fail, found before anything is sent to the workspace."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Sequence
from importlib.util import decode_source
from pathlib import Path
from typing import TYPE_CHECKING

from ..environments import find_requirement, pinned_version
from ..errors import DeploymentError
from ..models import same_minor, trained_with
from ..sdk import check_kind

if TYPE_CHECKING:
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig


def check_kinds(ws: object, model: object, inference_config: object) -> list[Model]:
    """Raise a `TypeError` for what is passed in the wrong place; return the models as a list."""
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    check_kind("ws", ws, "azureml.core.Workspace", "connect_workspace()")
    for each in models:
        check_kind("model", each, "azureml.core.Model", "fetch_model(ws)")
    kind, source = "azureml.core.model.InferenceConfig", "build_inference_config(environment)"
    check_kind("inference_config", inference_config, kind, source)
    return models


def check_deployment(name: str, models: Sequence[Model], inference_config: InferenceConfig) -> None:
    """Raise a `DeploymentError` for what would only fail minutes later, in the container."""
    check_name(name)
    check_script(Path(inference_config.source_directory or "", inference_config.entry_script))
    if inference_config.environment is not None:
        for model in models:
            check_version(model, inference_config.environment)


def check_name(name: str, what: str = "a service", letters: str = "lower-case letters") -> None:
    """Check that Azure takes it as a name; SDK v2's may have capitals."""
    flags = 0 if letters.startswith("lower-case") else re.IGNORECASE | re.ASCII
    if not re.fullmatch(r"[a-z][-a-z0-9]{1,30}[a-z0-9]", str(name), flags):
        raise DeploymentError(
            f"{name!r} is no name for {what}. Expected 3 to 32 {letters}, digits and '-', a letter "
            "first and no '-' last."
        )


def check_script(script: Path) -> None:
    """Compile a scoring script, without running it, and find ``init`` and ``run`` in it."""
    try:
        source = decode_source(script.read_bytes())
        tree = ast.parse(source, script)
        compile(tree, script, "exec", dont_inherit=True)
        symbols = symtable.symtable(source, str(script), "exec").get_symbols()
    except (OSError, SyntaxError, ValueError) as error:
        raise DeploymentError(
            f"The scoring script {script} cannot be compiled: {error}. Mend it first: the service "
            "would end with the same error."
        ) from error
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    if any(alias.name == "*" for node in imports for alias in node.names):
        return
    defined = {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
    if missing := [function for function in ("init", "run") if function not in defined]:
        raise DeploymentError(
            f"The scoring script {script} does not define {' and '.join(missing)}. Expected are "
            "init(), which the service calls when it starts, and run(data), for every request."
        )


def check_version(model: Model, environment: Environment) -> None:
    """A model that says which scikit-learn saved it must meet that one in the container."""
    trained, asked = trained_with(model), find_requirement(environment, "scikit-learn")
    if not trained or not asked or asked.specifier.contains(trained, prereleases=True):
        return
    pinned = pinned_version(environment, "scikit-learn")
    if pinned is None or not same_minor(pinned, trained):
        named = model.id if ":" in model.id else f"{model.name}:{model.version}"  # SDK v2's is long
        raise DeploymentError(
            f"Model {named} was saved by scikit-learn {trained}, but the environment "
            f"{environment.name!r} installs {asked}: it might not load there, or answer wrongly. "
            "Use the environment that belongs to the model, or prepare_workspace(ws) to have both."
        )
