"""What can be known to fail before anything is sent to the workspace."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import decode_source
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .errors import DeploymentError
from .model_file import same_minor
from .registry import ANSWER_LIMIT, trained_with
from .scoring_environment import find_requirement, pinned_version
from .script_imports import find_missing
from .sdk_call import Deadline, reason

if TYPE_CHECKING:
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig

_SERVICE_NAME = re.compile(r"[a-z][-a-z0-9]{1,30}[a-z0-9]")
_MODEL_FILE = re.compile(r"[\w./-]*[\w-]\.(pkl|pickle|joblib)")


def check_deployment(name: str, models: Sequence[Model], inference_config: InferenceConfig) -> None:
    """Raise a `DeploymentError` for what would only fail minutes later, in the container.

    What the environment does not seem to install is only printed: a package of another name, or
    the local workspace, may bring it.
    """
    check_name(name)
    script = Path(inference_config.source_directory or "", inference_config.entry_script)
    tree = parse_script(script)
    check_model_files(script, tree, models, inference_config.source_directory)
    environment = inference_config.environment
    if environment is None:
        return
    for model in models:
        check_version(model, environment)
    if missing := find_missing(tree, script.parent, environment):
        print(
            f"Note: {script.name} needs {', '.join(missing)}, which the environment "
            f"{environment.name!r} does not seem to install; on Azure it would not start."
        )


def check_name(name: str) -> None:
    """Check that Azure takes it as the name of a service."""
    if not _SERVICE_NAME.fullmatch(name):
        raise DeploymentError(
            f"{name!r} is no name for a service. Expected 3 to 32 lower-case letters, digits and "
            "'-', a letter first and no '-' last."
        )


def parse_script(script: Path) -> ast.Module:
    """Compile a scoring script, without running it, and find ``init`` and ``run`` in it."""
    try:
        source = decode_source(script.read_bytes())
        tree = ast.parse(source, str(script))
        compile(tree, str(script), "exec", dont_inherit=True)
        table = symtable.symtable(source, str(script), "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise DeploymentError(
            f"The scoring script {script} cannot be compiled: {error}. Mend it first: the service "
            "would end with the same error."
        ) from error
    symbols = table.get_symbols()
    defined = {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
    missing = [name for name in ("init", "run") if name not in defined]
    if missing and not _imports_star(tree):
        raise DeploymentError(
            f"The scoring script {script} does not define {' and '.join(missing)}. Expected are "
            "init(), which the service calls when it starts, and run(data), for every request."
        )
    return tree


def _imports_star(tree: ast.Module) -> bool:
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return any(alias.name == "*" for node in imports for alias in node.names)


def check_model_files(
    script: Path, tree: ast.Module, models: Sequence[Model], source_directory: str | None = None
) -> None:
    """Where the script names pickles, find one of them at least in the models or beside it."""
    strings = filter(_MODEL_FILE.fullmatch, _whole_strings(tree))
    named = {PurePosixPath(text).name for text in strings}
    if not named or any(model.unpack for model in models):  # what is in an archive is not listed
        return
    held = {PurePosixPath(path).name for model in models for path in _list_files(model)}
    beside = Path(source_directory).rglob("*") if source_directory else ()
    if named.isdisjoint(held | {path.name for path in beside}):
        raise DeploymentError(
            f"{script} loads {', '.join(sorted(named))}, but the model holds "
            f"{', '.join(sorted(held)) or 'no file'}. Deploy the model that holds it, or mend the "
            "name in the script."
        )


def _list_files(model: Model) -> Iterable[str]:
    try:
        return Deadline(ANSWER_LIMIT).call(model.get_sas_urls)
    except Exception as error:  # without its cause, which may hold a signed address
        raise DeploymentError(
            f"Model {model.id} cannot be looked into: {reason(error)} Is it registered still?"
        ) from None


def _whole_strings(node: ast.AST) -> Iterator[str]:
    """The strings that the code holds as they are, not as parts of longer ones."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.JoinedStr) and not (
        isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod))
    ):
        for child in ast.iter_child_nodes(node):
            yield from _whole_strings(child)


def check_version(model: Model, environment: Environment) -> None:
    """A model that says which scikit-learn saved it must meet that one in the container."""
    trained, asked = trained_with(model), find_requirement(environment, "scikit-learn")
    if not trained or not asked or asked.specifier.contains(trained, prereleases=True):
        return
    pinned = pinned_version(environment, "scikit-learn")
    if pinned is None or not same_minor(pinned, trained):
        raise DeploymentError(
            f"Model {model.id} was saved by scikit-learn {trained}, but the environment "
            f"{environment.name!r} installs {asked}: it might not load there, or answer wrongly. "
            "Use the environment that belongs to the model, or prepare_workspace(ws) to have both."
        )
