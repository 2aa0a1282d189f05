"""The names that the package offers: complete, cheap to import, typed and explained."""

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


def test_all_is_sorted_and_every_name_is_there():
    assert list(mnist_deploy.__all__) == sorted(set(mnist_deploy.__all__))
    for name in mnist_deploy.__all__:
        assert public(name).__name__ == name
        assert name in dir(mnist_deploy)


def test_every_function_of_the_design_is_public():
    promised = {
        *("connect_workspace", "prepare_workspace", "fetch_model", "download_model"),
        *("fetch_environment", "build_inference_config", "build_aci_config", "deploy_to_aci"),
        *("call_service", "post_images", "delete_service", "closing_service"),
        "package_service",
        *("MnistFiles", "download_mnist", "load_data", "load_test_data", "load_training_data"),
        *("plot_comparison", "plot_confusion_matrix", "plot_misclassified", "plot_predictions"),
        *("MnistDeployError", "tutorial_file"),
    }
    assert promised <= set(mnist_deploy.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute deploy_to_moon"):
        mnist_deploy.deploy_to_moon  # noqa: B018


def test_the_package_itself_imports_nothing_heavy():
    assert not imported_with("import mnist_deploy") & {*HEAVY, "numpy", "requests"}


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        ("load_data, download_mnist", set()),
        ("plot_confusion_matrix, plot_predictions", {"matplotlib"}),
        ("prepare_workspace, fetch_environment", set()),
        ("MnistDeployError", set()),
        ("call_service, post_images", set()),
        ("deploy_to_aci, fetch_model, build_aci_config, connect_workspace", set()),
    ],
)
def test_a_name_brings_only_what_it_needs(names, allowed):
    assert imported_with(f"from mnist_deploy import {names}") & {*HEAVY} <= allowed


def test_no_sdk_is_loaded_before_it_is_asked_for():
    """By the kit, which pytest loads, none; by what serves both, none of v2."""
    assert "azureml" not in imported_with("import mnist_deploy.testing")
    v2 = "import mnist_deploy.managed, mnist_deploy.local.server.process"
    assert "azure" not in imported_with(v2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_result_is_typed(name):
    signature = inspect.signature(public(name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_and_gives(name):
    function, parts = public(name), sections(public(name))
    summary = inspect.getdoc(function).splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= 100
    parameters = set(inspect.signature(function).parameters)
    assert parameters == documented(parts.get("Parameters", ""))
    returns = str(inspect.signature(function).return_annotation)
    assert ("Returns" in parts) == (returns != "None")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_said_to_be_raised_exists(name):
    for raised in documented(sections(public(name)).get("Raises", "")):
        assert hasattr(errors, raised) or hasattr(builtins, raised)


@pytest.mark.parametrize(
    ("call", "told"),
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
def test_what_is_passed_in_the_wrong_place_says_what_belongs_there(mocked_workspace, call, told):
    with pytest.raises(TypeError, match=told):
        call(mocked_workspace)


def sections(thing: object) -> dict[str, str]:
    """The parts of a numpydoc docstring under their headings."""
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> set[str]:
    """The names that a section explains: what stands at the margin, before a colon."""
    lines = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip(" *") for line in lines for name in line.partition(" :")[0].split(",")}


WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    results = doctest.testmod(importlib.import_module(".".join(parts)))
    assert results.attempted
    assert not results.failed
