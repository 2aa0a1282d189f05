"""The public names: complete, cheap to import, typed and documented."""

from __future__ import annotations

import builtins
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_deploy
from mnist_deploy import errors

PACKAGE = Path(mnist_deploy.__file__).parent
HEAVY = ("azureml", "flask", "httptools", "matplotlib", "mlxtend", "scipy", "sklearn")


def public(name: str) -> object:
    return getattr(mnist_deploy, name)


FUNCTIONS = [name for name in mnist_deploy.__all__ if inspect.isfunction(public(name))]


def imported_with(statement: str) -> set[str]:
    """The packages that a fresh interpreter has imported after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_list_of_public_names_is_sorted_and_they_exist():
    assert list(mnist_deploy.__all__) == sorted(set(mnist_deploy.__all__))
    for name in mnist_deploy.__all__:
        assert public(name).__name__.removeprefix("mnist_deploy.") == name
        assert name in dir(mnist_deploy)


# "Public names" of the design.
PUBLIC_NAMES = {
    "mnist_deploy": """
        connect_workspace prepare_workspace fetch_model download_model fetch_environment
        build_inference_config build_aci_config deploy_to_aci build_aks_config deploy_to_aks
        package_service call_service post_images download_mnist load_data load_test_data
        load_training_data MnistFiles plot_confusion_matrix plot_predictions plot_misclassified
        plot_comparison delete_service closing_service tutorial_file errors
    """,
    "mnist_deploy.managed": """
        connect_client deploy_to_endpoint call_endpoint delete_endpoint migrate_service Migration
        deploy_batch score_batch
    """,
}
SIGNATURES = {  # the parameters that the design names
    "deploy_to_aci": "ws, model, inference_config, aci_config, name, overwrite, timeout",
    "deploy_to_aks": "ws, model, inference_config, aks_config, cluster, name, overwrite, timeout",
    "build_aci_config": "cpu_cores, memory_gb, tags, description, aci",
    "build_aks_config": "cpu_cores, memory_gb, replicas, tags, description, aks",
    "package_service": "ws, model, inference_config, folder",
    "connect_workspace": "config, local, auth",
    "prepare_workspace": "ws, data_dir, regularization",
}


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_public_names_are_those_of_the_design(module):
    assert set(importlib.import_module(module).__all__) == set(PUBLIC_NAMES[module].split())


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_are_those_of_the_design(name):
    assert ", ".join(inspect.signature(public(name)).parameters) == SIGNATURES[name]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute deploy_to_moon"):
        mnist_deploy.deploy_to_moon  # noqa: B018


def test_package_imports_nothing_heavy():
    assert not imported_with("import mnist_deploy") & {*HEAVY, "numpy", "requests"}


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        ("load_data, download_mnist", set()),
        ("plot_confusion_matrix, plot_predictions", {"matplotlib"}),
        ("prepare_workspace, fetch_environment", set()),
        ("errors", set()),
        ("call_service, post_images", set()),
        ("deploy_to_aci, fetch_model, build_aci_config, connect_workspace", set()),
    ],
)
def test_name_imports_only_what_it_needs(names, allowed):
    assert imported_with(f"from mnist_deploy import {names}") & {*HEAVY} <= allowed


def test_sdks_are_imported_only_on_use():
    """Neither by the pytest plugin, nor SDK v2 by the control plane."""
    assert "azureml" not in imported_with("import mnist_deploy.testing")
    v2 = "import mnist_deploy.managed, mnist_deploy.local.server.process"
    assert "azure" not in imported_with(v2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_and_result_are_typed(name):
    signature = inspect.signature(public(name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_has_all_parameters_and_the_result(name):
    function, parts = public(name), sections(public(name))
    summary = inspect.getdoc(function).splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= 100
    parameters = set(inspect.signature(function).parameters)
    assert parameters == documented(parts.get("Parameters", ""))
    returns = str(inspect.signature(function).return_annotation)
    assert ("Returns" in parts) == (returns != "None")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented_exceptions_exist(name):
    for raised in documented(sections(public(name)).get("Raises", "")):
        assert hasattr(errors, raised) or hasattr(builtins, raised)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ws: mnist_deploy.fetch_model(None), "ws is of type NoneType; expected the Wor"),
        (lambda ws: mnist_deploy.fetch_environment("local"), "ws is of type str"),
        (lambda ws: mnist_deploy.download_model("sklearn_mnist"), "expected the Model that fetch"),
        (lambda ws: mnist_deploy.build_inference_config("tutorial-env"), "expected the Environ"),
        (lambda ws: mnist_deploy.deploy_to_aci("local", [], None, None), "ws is of type str"),
        (lambda ws: mnist_deploy.deploy_to_aci(ws, None, None, None), "model is of type NoneType"),
        (lambda ws: mnist_deploy.deploy_to_aci(ws, [], None, None), "inference_config is of type"),
        (lambda ws: mnist_deploy.call_service("http://x/score", [[0]]), "expected the Webservice"),
        (lambda ws: mnist_deploy.delete_service("svc"), "service is of type str; expected the Web"),
        (
            lambda ws: mnist_deploy.post_images(ws, [[0]]),
            "str that service.scoring_uri returns",
        ),
        (
            lambda ws: mnist_deploy.post_images("http://x/score", [[0]], api_key=("a", "b")),
            r"api_key is of type tuple; expected the str that service.get_keys\(\)\[0\] returns",
        ),
    ],
)
def test_argument_of_the_wrong_class_is_rejected(mocked_workspace, call, message):
    with pytest.raises(TypeError, match=message):
        call(mocked_workspace)


def sections(thing: object) -> dict[str, str]:
    """The sections of a numpydoc docstring by their titles."""
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> set[str]:
    """The names that a section documents: unindented, before a colon."""
    lines = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip(" *") for line in lines for name in line.partition(" :")[0].split(",")}


WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    results = doctest.testmod(importlib.import_module(".".join(parts)))
    assert results.attempted
    assert not results.failed
