"""Check a deployment before anything is sent to the workspace."""

from __future__ import annotations

import ast
import re
import symtable
import warnings
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


# Of azureml_inference_server_http, whose folder comes first on the container's sys.path.
_SERVER_MODULES = {"config", "entry", "exceptions", "routes", "swagger", "utils"}


def check_kinds(ws: object, model: object, inference_config: object) -> list[Model]:
    """Raise a `TypeError` for an argument of the wrong class; return the models as a list."""
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    check_kind("ws", ws, "azureml.core.Workspace", "connect_workspace()")
    for each in models:
        check_kind("model", each, "azureml.core.Model", "fetch_model(ws)")
    kind, source = "azureml.core.model.InferenceConfig", "build_inference_config(environment)"
    check_kind("inference_config", inference_config, kind, source)
    return models


def check_deployment(name: str, models: Sequence[Model], inference_config: InferenceConfig) -> None:
    """Raise a `DeploymentError` for errors that the container would report minutes later."""
    check_name(name)
    check_script(Path(inference_config.source_directory or "", inference_config.entry_script))
    if inference_config.environment is not None:
        for model in models:
            check_version(model, inference_config.environment)


def check_name(name: str, what: str = "a service", letters: str = "lower-case letters") -> None:
    """Check a name by the rules of Azure; names of SDK v2 may have capital letters."""
    flags = 0 if letters.startswith("lower-case") else re.IGNORECASE | re.ASCII
    if not re.fullmatch(r"[a-z][-a-z0-9]{1,30}[a-z0-9]", str(name), flags):
        raise DeploymentError(
            f"{name!r} is not a valid name of {what}. Expected 3 to 32 {letters}, digits and '-', "
            "beginning with a letter and not ending with '-'."
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
            f"The scoring script {script} cannot be compiled: {error}. Correct it first: the "
            "service would fail with the same error."
        ) from error
    _warn_of_shadowed_modules(script, tree)
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    if any(alias.name == "*" for node in imports for alias in node.names):
        return
    defined = {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
    if missing := [function for function in ("init", "run") if function not in defined]:
        raise DeploymentError(
            f"The scoring script {script} does not define {' and '.join(missing)}. Expected are "
            "init(), which the service calls when it starts, and run(data), for every request."
        )


def _warn_of_shadowed_modules(script: Path, tree: ast.Module) -> None:
    """Warn if Microsoft's server would import its own module of the same name."""
    imported = {script.stem}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add((node.module or "").partition(".")[0])
    for name in sorted(imported & _SERVER_MODULES):
        warnings.warn(
            f"The module {name!r} of the scoring script {script} is hidden by a module of that "
            "name in Microsoft's inference server. Rename the module.",
            UserWarning,
            stacklevel=2,
        )


def check_version(model: Model, environment: Environment) -> None:
    """Check that the environment installs the scikit-learn that saved the model, if registered."""
    trained, required = trained_with(model), find_requirement(environment, "scikit-learn")
    if not trained or not required or required.specifier.contains(trained, prereleases=True):
        return
    pinned = pinned_version(environment, "scikit-learn")
    if pinned is None or not same_minor(pinned, trained):
        # The id of a model of SDK v2 is a path.
        model_id = model.id if ":" in model.id else f"{model.name}:{model.version}"
        raise DeploymentError(
            f"Model {model_id} was saved by scikit-learn {trained}, but the environment "
            f"{environment.name!r} installs {required}: the model may fail to load, or predict "
            "wrongly. "
            "Use the environment that belongs to the model; prepare_workspace(ws) registers both."
        )
