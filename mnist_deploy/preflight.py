"""What can be known to fail before anything is sent to the workspace."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .errors import DeploymentError
from .scoring_environment import pinned_version

if TYPE_CHECKING:
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig

_MODEL_FILE = re.compile(r"[\w.-]+\.(pkl|pickle|joblib)")


def check_deployment(models: Sequence[Model], inference_config: InferenceConfig) -> None:
    """Raise a `DeploymentError` for what would only fail minutes later, in the container."""
    folder = Path(inference_config.source_directory or ".")
    script = folder / inference_config.entry_script
    tree = parse_script(script)
    check_model_files(script, tree, models)
    check_versions(models, inference_config.environment)


def parse_script(script: Path) -> ast.Module:
    """Compile a scoring script, without running it, and find ``init`` and ``run`` in it."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"), filename=str(script))
    except (OSError, SyntaxError, ValueError) as error:
        raise DeploymentError(f"The scoring script {script} cannot be compiled: {error}") from error
    missing = [name for name in ("init", "run") if name not in _top_level_names(tree)]
    if missing:
        raise DeploymentError(
            f"The scoring script {script} does not define {' and '.join(missing)}. The service "
            "calls init() once, when it starts, and run(request) for every request."
        )
    return tree


def _top_level_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            names |= {"init", "run"} & {
                inner.name for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)
            }
    return names if "*" not in names else names | {"init", "run"}


def check_model_files(script: Path, tree: ast.Module, models: Sequence[Model]) -> None:
    """Where the script names pickles, one of them at least must be in the models."""
    named = {
        PurePosixPath(node.value).name
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _MODEL_FILE.fullmatch(PurePosixPath(node.value).name)
    }
    if not named:
        return
    held = {PurePosixPath(path).name for model in models for path in model.get_sas_urls()}
    if not named & held:
        raise DeploymentError(
            f"{script} loads {', '.join(sorted(named))}, but the model holds "
            f"{', '.join(sorted(held)) or 'no file'}. Deploy another model, or name its file."
        )


def check_versions(models: Sequence[Model], environment: Environment | None) -> None:
    """A model that says which scikit-learn saved it must meet that one in the container."""
    pinned = pinned_version(environment, "scikit-learn") if environment is not None else None
    for model in models:
        saved_with = (model.properties or {}).get("scikit-learn")
        if pinned and saved_with and pinned != saved_with:
            raise DeploymentError(
                f"Model {model.id} was saved by scikit-learn {saved_with}, but the environment "
                f"{environment.name!r} installs {pinned}. Use the environment that was "
                "registered with it, or prepare_workspace(ws) to make both anew."
            )
