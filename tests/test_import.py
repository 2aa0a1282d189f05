"""What an import costs, who may import whom, and that what is imported is declared."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mnist_deploy
from mnist_deploy.script_imports import list_providers
from mnist_deploy.tutorial import tutorial_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(mnist_deploy.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"azureml", "sklearn", "matplotlib", "flask"}
LONGEST = 250  # lines of a module

# The rooms of the design page, and those that grew out of them.
WITHOUT_AZURE = {
    "data", "files", "idx", "sources", "training", "model_file", "plots", "payload",
    "endpoint", "errors", "tutorial",
}  # fmt: skip
WITH_AZURE = {
    "registry", "preparation", "deployment", "service_config", "preflight", "script_imports",
    "scoring_environment", "login", "sdk_call", "client", "views",
}  # fmt: skip
KNOW_LOCAL = {"workspace", "testing", "local"}


def name_of(file: Path) -> str:
    """``mnist_deploy.local.tls`` for its file."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[str]:
    """Full names of all that a module imports, anywhere in it, for type checkers as well."""
    name = name_of(file) if file.is_relative_to(PACKAGE) else ""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """``local`` for ``mnist_deploy.local.tls``."""
    return f"{name}..".split(".")[1]


def rooms_imported(room: str) -> set[str]:
    files = [file for file in MODULES if room_of(name_of(file)) == room]
    assert files, f"there is no room {room}"
    found = {name for file in files for name in imports_of(file)}
    return {room_of(name) for name in found if name.startswith("mnist_deploy")} - {room, ""}


def loaded_by(program: str) -> set[str]:
    """Top-level names of the modules that a new interpreter holds after a program."""
    program += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


# Costs


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by("import mnist_deploy")
    assert not loaded & (HEAVY | {"numpy", "requests"})
    assert "mnist_deploy" in loaded


@pytest.mark.parametrize(
    ("room", "heavy"),
    [
        ("data", set()),
        ("errors", set()),
        ("plots", {"matplotlib"}),
        ("training", {"sklearn"}),
        ("workspace", set()),
        ("registry", set()),
        ("deployment", set()),
        ("client", set()),
    ],
)
def test_a_room_loads_what_it_is_about(room, heavy):
    assert loaded_by(f"import mnist_deploy.{room}") & HEAVY <= heavy


def test_public_names_are_listed_and_lead_somewhere():
    assert mnist_deploy.__all__ == sorted(set(mnist_deploy.__all__))
    assert set(mnist_deploy.__all__) <= set(dir(mnist_deploy))
    for name in mnist_deploy.__all__:
        assert getattr(mnist_deploy, name).__module__.startswith("mnist_deploy.")
    with pytest.raises(AttributeError, match="has no attribute 'deploy_to_moon'"):
        mnist_deploy.deploy_to_moon  # noqa: B018


# Who may import whom


@pytest.mark.parametrize("room", sorted(WITHOUT_AZURE))
def test_rooms_without_azure(room):
    files = [file for file in MODULES if name_of(file) == f"mnist_deploy.{room}"]
    for name in imports_of(files[0]):
        assert name.split(".")[0] not in {"azureml", "azure", "msrest", "msal"}, name
    assert rooms_imported(room) <= WITHOUT_AZURE


@pytest.mark.parametrize("room", sorted(WITH_AZURE))
def test_rooms_with_azure_do_not_know_the_local_workspace(room):
    assert not rooms_imported(room) & KNOW_LOCAL


def test_who_knows_that_there_is_a_local_workspace():
    rooms = {room_of(name_of(file)) for file in MODULES}
    assert {room for room in rooms if "local" in rooms_imported(room)} <= KNOW_LOCAL


def test_the_local_workspace_could_be_lifted_out():
    assert rooms_imported("local") == set()


def test_the_scoring_script_is_uploaded_alone():
    assert not any("mnist_deploy" in name for name in imports_of(tutorial_file("score.py")))


def test_every_room_has_a_place_in_these_rules():
    rooms = {room_of(name_of(file)) for file in MODULES}
    entrances = {"", "__main__", "part_one", "open_datasets"}
    assert rooms == WITHOUT_AZURE | WITH_AZURE | KNOW_LOCAL | entrances


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_no_module_outgrows_its_room(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


# What is declared

# Declared, and not imported by name. Why:
NOT_IMPORTED = {
    "azureml-opendatasets",  # by a process of its own, whose program is a text
    "ipykernel",  # runs the notebooks
    "jupyter",  # the README's `jupyter lab notebooks/`
    "setuptools",  # azureml imports its pkg_resources
}
# Imported, and declared elsewhere.
TESTERS = {"pytest"}


def declared() -> set[str]:
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("installed from a wheel: no pyproject.toml")
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}


files_of = cache(metadata.files)


def distributions_of(module: str) -> set[str]:
    """The installed distributions that a module comes from."""
    distributions = list_providers().get(module.split(".")[0], set())
    if len(distributions) > 1:  # a name that several share: the next part decides
        parts = tuple(module.split(".")[:2])
        distributions = {
            each
            for each in distributions
            if any(
                (*file.parts[:-1], file.stem)[:2] == parts
                for file in files_of(each) or []
                if file.suffix in (".py", ".so")
            )
        }
    return distributions


def third_party_imports() -> set[str]:
    """Full names, of what the package and the scoring script import."""
    files = [*MODULES, tutorial_file("score.py")]
    names = {name for file in files for name in imports_of(file)}
    own = {"mnist_deploy", "__future__"}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names | own}


def test_what_is_imported_is_declared_and_nothing_else():
    known, used = declared(), set()
    for module in third_party_imports():
        distributions = distributions_of(module)
        if distributions <= TESTERS and distributions:
            continue
        assert distributions & known, f"{module} is of {distributions or 'nothing installed'}"
        used |= distributions & known
    assert known - used <= NOT_IMPORTED


def test_the_namespace_is_told_apart():
    """Several distributions share the name azureml: one of them must not stand for another."""
    assert distributions_of("azureml.core.Workspace") == {"azureml-core"}
    assert distributions_of("sklearn.svm") == {"scikit-learn"}
    assert distributions_of("yaml") == {"pyyaml"}
    assert distributions_of("nothing_of_that_name") == set()
