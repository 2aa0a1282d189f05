"""The import rules of the packages; imports are declared as dependencies."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mnist_deploy
from mnist_deploy.tutorial import tutorial_file

PACKAGE = Path(mnist_deploy.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The map: each package, and the packages that it may import. ``testing`` and what is not named in
# `WITHOUT_AZURE` may import Azure's SDK too.
MAP: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "tutorial": set(),
    "plots": set(),
    "data": {"errors"},
    "sdk": {"errors"},
    "models": {"errors", "sdk"},
    "environments": {"errors", "sdk", "tutorial"},
    "deployment": {"environments", "errors", "models", "sdk", "tutorial"},
    "client": {"data", "errors", "sdk"},
    "workspace": {"errors", "local", "sdk"},
    "managed": {"client", "deployment", "errors", "local", "models", "sdk", "workspace"},
    "part_one": {"data", "environments", "errors", "models", "sdk", "workspace"},
    "__main__": {"errors", "local", "tutorial", "workspace"},
    "testing": {
        *("client", "data", "deployment", "environments", "errors", "local", "managed"),
        *("models", "sdk", "tutorial", "workspace"),
    },
    "local": set(),
}
# The same within the local workspace; "" is its ``__init__``. No SDK's REST knows of another's,
# and core of none, nor of Flask; scoring processes are started, not imported.
LOCAL_MAP: dict[str, set[str]] = {
    "platforms": set(),
    "http": {"host"},
    "private_files": {"host"},
    "tokens": set(),
    "tls": {"private_files"},
    "discovery": {"host", "private_files", "tokens"},
    "authorization": set(),
    "process_tree": {"host"},
    "host": set(),
    "control_socket": set(),
    "client": {"control_plane", "discovery"},
    "control_plane": {"discovery", "host"},
    "": {"client", "control_plane", "discovery", "session_hooks"},
    "core": {"authorization", "control_socket", "host", "http", "platforms", "process_tree"},
    "scoring": {"authorization", "control_socket", "host", "http", "platforms", "process_tree"},
    "programs": {"process_tree"},  # started, not imported
    "start_modules": {"scoring", "session_hooks"},
    "session_hooks": set(),  # copied for the processes of ``exec`` and of runs
    "bodies": {"core"},
    "listener": {"host", "wsgi"},
    "wsgi": set(),
    "rest": {"bodies", "core"},
    "validation": {"core"},
    "v1": {"bodies", "core", "host", "platforms", "rest", "tokens", "validation"},
    "v2": {"bodies", "core", "platforms", "rest", "tokens", "validation"},
    "mlflow_api": {"bodies", "core", "rest", "validation"},
    "portal": {"bodies", "core", "host", "listener", "rest", "wsgi"},
    "server": {
        *("", "bodies", "core", "discovery", "host", "listener", "mlflow_api", "portal", "rest"),
        *("start_modules", "tls", "tokens", "v1", "v2", "validation", "wsgi"),
    },
    # cli: the last two are files that it copies
    "cli": {"", "control_plane", "discovery", "host", "scoring", "start_modules"},
    "__main__": {"cli"},
}
PACKAGES = {"mnist_deploy": MAP, "mnist_deploy.local": LOCAL_MAP}
WITHOUT_AZURE = {"data", "errors", "plots", "tutorial"}
AZURE = {"azure", "azureml", "msal", "msrest"}
OFFLINE_SUBSTITUTE = "open_datasets.py"  # raises an exception of the SDK, and therefore imports it
MAX_ENTRIES = 16  # files and folders in mnist_deploy/


def name_of(file: Path) -> str:
    """The name of the module of a file, such as ``mnist_deploy.local.tls``."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(file: Path) -> tuple[str, ...]:
    """The full names of all imports of a module, those for type checkers included."""
    return tuple(read_imports(file))


def read_imports(file: Path) -> Iterator[str]:
    name = name_of(file) if file.is_relative_to(PACKAGE) else ""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def package_of(name: str, root: str = "mnist_deploy") -> str | None:
    """``local`` for ``mnist_deploy.local.tls``, within ``mnist_deploy.local`` ``tls``; "" for what
    the root itself holds, None for what is outside.
    """
    if not f"{name}.".startswith(f"{root}."):
        return None
    package = f"{name}..".removeprefix(f"{root}.").split(".")[0]
    folder = PACKAGE.parent.joinpath(*root.split("."), package)
    return package if folder.is_dir() or package in PACKAGES[root] else ""


def files_in(package: str, root: str = "mnist_deploy") -> list[Path]:
    return [file for file in MODULES if package_of(name_of(file), root) == package]


def packages_of(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(file)}


# --- the import rules ---


@pytest.mark.parametrize(
    ("root", "package"),
    [(root, package) for root, packages in PACKAGES.items() for package in sorted(packages)],
)
def test_package_imports_only_what_the_import_map_allows(root, package):
    files = files_in(package, root)
    assert files, f"there is no package {package}"
    found = {package_of(name, root) for file in files for name in imports_of(file)}
    allowed = {package, None} if root == "mnist_deploy.local" else {package, None, ""}
    assert found - allowed <= PACKAGES[root][package]


@pytest.mark.parametrize("root", PACKAGES)
def test_import_map_has_each_package_and_no_cycle(root):
    folder = PACKAGE.parent.joinpath(*root.split("."))
    packages = {file.relative_to(folder).parts[0].removesuffix(".py")
             for file in MODULES if file.is_relative_to(folder)}  # fmt: skip
    assert {"" if package == "__init__" else package for package in packages} == PACKAGES[
        root
    ].keys()
    TopologicalSorter(PACKAGES[root]).prepare()


def test_packages_without_azure_import_neither_azure_nor_flask():
    for file in (file for package in WITHOUT_AZURE for file in files_in(package)):
        assert file.name == OFFLINE_SUBSTITUTE or not packages_of(file) & AZURE, file
    for file in files_in("core", "mnist_deploy.local"):
        assert not packages_of(file) & {"flask", "werkzeug"}, file


def test_modules_have_no_import_cycle():
    modules = {name_of(file) for file in MODULES}
    graph = {}
    for file in MODULES:
        parents = (
            {".".join(name.split(".")[:n]) for n in range(1, 9)} for name in imports_of(file)
        )
        nearest = {max(found, key=len) for each in parents if (found := each & modules)}
        graph[name_of(file)] = nearest - {name_of(file), "mnist_deploy"}
    TopologicalSorter(graph).prepare()


def test_scoring_script_does_not_import_the_package():
    assert "mnist_deploy" not in packages_of(tutorial_file("score.py"))


def test_package_has_few_entries():
    entries = {path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert len(entries - {"__init__.py", "__pycache__", "tutorial_files"}) <= MAX_ENTRIES


# --- declared dependencies ---

INSTRUMENTED = ("django", "fastapi", "flask", "psycopg2", "requests", "urllib", "urllib3")
# Declared, but not imported by name:
NOT_IMPORTED = {
    "azure-monitor-opentelemetry",  # a bound on what azure-ai-ml requires: spares pip a search
    "azure-monitor-opentelemetry-exporter",  # likewise, and so are the next nine
    "azure-storage-file-datalake",
    "fastapi",
    *(f"opentelemetry-instrumentation-{name}" for name in INSTRUMENTED),
    "azureml-dataset-runtime",  # the data engine of data sets, which azureml-core imports
    "azureml-mlflow",  # a plug-in of MLflow, and SDK v1 imports it
    "skops",  # the format in which MLflow saves models of scikit-learn
    "azureml-opendatasets",  # by a child process, whose program is a string
    "ipykernel",  # runs the notebooks
    "jsonschema",  # a bound on what azure-ai-ml and Jupyter require: spares each process seconds
    "jupyter",  # the README's `jupyter lab notebooks/`
    "setuptools",  # azureml imports pkg_resources and distutils of it
}
# Imported, but declared by others.
TESTERS = {"pytest"}


def declared() -> set[str]:
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("installed from a wheel: no pyproject.toml")
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["sdk-v2"], *extras["mlflow"]]
    return {canonicalize_name(Requirement(line).name) for line in lines}


files_of = cache(metadata.files)


@cache
def providers() -> Mapping[str, set[str]]:
    """Map top-level modules to their distributions."""
    return {
        module: set(map(canonicalize_name, names))
        for module, names in metadata.packages_distributions().items()
    }


def distributions_of(module: str) -> set[str]:
    """The installed distributions that a module comes from."""
    distributions = providers().get(module.split(".")[0], set())
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
    """The full names of third-party imports of the package and the scoring script."""
    files = [*MODULES, tutorial_file("score.py")]
    names = {name for file in files for name in imports_of(file)}
    own = {"mnist_deploy", "__future__"}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names | own}


def test_dependencies_are_those_that_are_imported():
    known, used = declared(), set()
    for module in third_party_imports():
        distributions = distributions_of(module)
        if distributions <= TESTERS and distributions:
            continue
        if module.startswith("mlflow") and not distributions:
            pytest.skip("the extra mlflow is not installed")
        assert distributions & known, f"{module} is of {distributions or 'nothing installed'}"
        used |= distributions & known
    assert known - used <= NOT_IMPORTED


def test_distributions_of_a_shared_namespace_are_distinguished():
    """Several distributions have modules in azureml."""
    assert distributions_of("azureml.core.Workspace") == {"azureml-core"}
    assert distributions_of("sklearn.svm") == {"scikit-learn"}
    assert distributions_of("yaml") == {"pyyaml"}
    assert distributions_of("nothing_of_that_name") == set()
