"""What a reader of the notebooks needs before a cell, and the links to other pages."""

from __future__ import annotations

import ast
import re

import pytest
from probed_run import read
from test_committed import PART_TWO, WITH_HARDENED_SCRIPT

from mnist_deploy.tutorial import tutorial_file

NO_CALL_OF_THE_SDK = {"tutorial_file"}  # returns a path in this project


def program(source: str) -> ast.AST:
    return ast.parse(re.sub(r"(?m)^%.*", "", source))


def helpers_of(notebook) -> set[str]:
    """The functions that a notebook imports from mnist_deploy."""
    return {
        alias.name
        for cell in notebook.cells
        if cell.cell_type == "code"
        for node in ast.walk(program(cell.source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_deploy")
        for alias in node.names
        if alias.name.islower()
    }


def is_called(helper: str, source: str) -> bool:
    return any(
        isinstance(node, ast.Call) and getattr(node.func, "id", None) == helper
        for node in ast.walk(program(source))
    )


@pytest.mark.parametrize("name", PART_TWO)
def test_calls_of_the_sdk_are_shown_before_the_first_use_of_each_helper(name):
    notebook = read(name)
    for helper in helpers_of(notebook) - NO_CALL_OF_THE_SDK - {"errors"}:
        text = ""
        for cell in notebook.cells:
            if cell.cell_type == "code" and is_called(helper, cell.source):
                break
            if cell.cell_type == "markdown" and f"`{helper}`" in cell.source:
                text = cell.source
        else:
            pytest.fail(f"{helper} is imported and never called")
        assert "```python" in text, f"{helper} is used before its calls of the SDK are shown"


@pytest.mark.parametrize("name", WITH_HARDENED_SCRIPT)
def test_script_of_the_reader_is_deployed_and_called_before_the_hardened_one(name):
    source = "\n".join(cell.source for cell in read(name).cells)
    steps = (
        "%%writefile score.py",
        'entry_script="score.py"',
        "plot_predictions(X_test[sample]",
        "Harden the script",
        'script = tutorial_file("score.py")',
        "entry_script=script",
        "y_hat = call_",
    )
    places = [source.find(step) for step in steps]
    assert places == sorted(places)
    assert places[0] > 0


@pytest.mark.parametrize("name", PART_TWO)
def test_notebook_names_what_the_editions_of_the_tutorial_explain(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    for words in (
        "Shift+Enter",
        "AZUREML_MODEL_DIR",
        "several times",
        "production" if "2026" not in name else "migrate_service",
        "resource group",
        "deployment options",
        "automated machine learning",
        "python -m mnist_deploy.local serve",
    ):
        assert words in text, words


@pytest.mark.parametrize("name", PART_TWO)
def test_links_lead_to_notebooks_of_this_repository_or_to_microsoft(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        if not link.startswith(("https://learn.microsoft.com/", "https://github.com/Azure/")):
            assert tutorial_file(f"notebooks/{link.partition('#')[0]}").is_file(), link
