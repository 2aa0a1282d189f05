"""What the README shows is what the tests run, and what it links to is there."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent

import azureml.core.compute
import azureml.core.conda_dependencies
import azureml.core.image
import azureml.core.webservice
import pytest

from mnist_deploy import __main__ as run_the_notebook
from mnist_deploy.local import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCAL_README = (ROOT / "mnist_deploy/local/README.md").read_text(encoding="utf-8")


def test_examples_are_the_files_that_the_tests_run():
    shown = re.findall(r"<!-- (tests/examples/\S+) -->\n```python\n(.*?)```", README, re.DOTALL)
    assert len(shown) == 3
    for path, code in shown:
        assert code == (ROOT / path).read_text(encoding="utf-8"), path


def test_links_lead_to_existing_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_runs_the_readmes_test_command_in_an_environment_of_its_own():
    [command] = re.findall(r"(?m)^    (python3 -m venv .*\[test\].*)$", README)
    steps = command.replace(".venv/bin/pytest", "run_tests").split(" && ")
    ci = (
        (ROOT / ".ci" / "run")
        .read_text(encoding="utf-8")
        .replace('"$venv/bin/pip"', ".venv/bin/pip")
    )
    lines = ci.replace('"$venv"', ".venv").splitlines()
    assert [step for step in steps if step not in lines] == []


def test_readme_command_runs_the_notebook():
    assert "pip install -e . && .venv/bin/python -m mnist_deploy\n" in README


# The command lines


def shown_by_help(parse_arguments, capsys, pattern: str) -> list[str]:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    return re.findall(pattern, capsys.readouterr().out)


def test_verbs_are_documented_and_exercised(capsys):
    [verbs] = shown_by_help(cli.parse_arguments, capsys, r"\n  \{([a-z,]+)\}")
    tests = "".join(file.read_text() for file in (ROOT / "tests/local").rglob("test_*.py"))
    for verb in verbs.split(","):
        assert re.search(rf"python -m mnist_deploy\.local {verb}\b", LOCAL_README), verb
        assert re.search(rf'"{verb}"', tests), verb


def test_options_are_documented_and_exercised(capsys):
    options = shown_by_help(run_the_notebook.parse_arguments, capsys, r"(?m)^  (-[-\w]+)")
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    for option in set(options) - {"-h"}:
        assert re.search(rf"`{option}\b", README), option
        assert f'"{option}"' in tests, option


# The table of the SDK's calls: what it names is called by a test or a notebook, of the SDK's own
# classes. And what the conformance test calls stands in it.

CONFORMANCE = ROOT / "tests" / "local" / "test_conformance.py"
ROWS = LOCAL_README.partition("| call of SDK v1 |")[2].partition("\n\n")[0].splitlines()[2:]
SDK_MODULES = [
    azureml.core,
    azureml.core.compute,
    azureml.core.conda_dependencies,
    azureml.core.image,
    azureml.core.model,
    azureml.core.webservice,
]


def words_of(row: str) -> list[str]:
    """``Model``, ``Model.list``, ``download``, …: all names in backticks of a row's first cell."""
    phrases = re.findall(r"`([^`]+)`", row.split("|")[1])
    return [word for phrase in phrases for word in re.findall(r"[A-Za-z_][\w.]*", phrase)]


def sdk_class(name: str) -> type | None:
    found = (getattr(module, name, None) for module in SDK_MODULES)
    return next((each for each in found if inspect.isclass(each)), None)


def programs() -> Iterator[ast.AST]:
    """The tests, but for those of the mock, what they keep in texts, and the notebooks."""
    for file in (ROOT / "tests").rglob("*.py"):
        if "testing" not in file.parts and file != Path(__file__):
            yield (program := ast.parse(file.read_text()))
            for node in ast.walk(program):
                if isinstance(node, ast.Constant) and "(" in str(node.value):
                    yield from parsed(str(node.value))
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(file.read_text())["cells"]:
            yield from parsed("".join(cell["source"]))


def parsed(text: str) -> Iterator[ast.AST]:
    try:
        yield ast.parse(re.sub(r"(?m)^%.*", "", dedent(text)))
    except (SyntaxError, ValueError):
        return


@cache
def used() -> set[str]:
    """``Model.list`` and ``.download``: what follows a dot; besides, what is called or passed."""
    found = set()
    for node in (node for program in programs() for node in ast.walk(program)):
        if isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            found.add(f"{of if sdk_class(of) else ''}.{node.attr}")
        elif isinstance(node, ast.keyword):
            found.add(str(node.arg))
        elif isinstance(node, (ast.Name, ast.Constant)):
            found.add(str(node.id if isinstance(node, ast.Name) else node.value))
    return found


def is_used(word: str, classes: list[str]) -> bool:
    """Whether a call, an attribute, a class or an argument is; of classes that the row names."""
    owner, _, name = word.rpartition(".")
    if not owner and sdk_class(word):
        return word in used() or any(each.startswith(f"{word}.") for each in used())
    owners = [each for each in ([owner] if owner else classes) if hasattr(sdk_class(each), name)]
    if not owners:
        return bool({name, f".{name}"} & used())
    of_an_instance = f".{name}" in used() and not all(is_static(each, name) for each in owners)
    return of_an_instance or any(f"{each}.{name}" in used() for each in owners)


def is_static(owner: str, name: str) -> bool:
    return isinstance(inspect.getattr_static(sdk_class(owner), name), (staticmethod, classmethod))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: words_of(row)[0])
def test_calls_in_the_table_are_exercised(row):
    words = words_of(row)
    classes = [name for word in words if sdk_class(name := word.partition(".")[0])]
    assert [word for word in words if not is_used(word, classes)] == []


def test_calls_of_the_conformance_test_are_in_the_table():
    program = ast.parse(CONFORMANCE.read_text())
    classes = [found for node in program.body if isinstance(node, ast.ImportFrom)
               for alias in node.names if (found := sdk_class(alias.name))]  # fmt: skip
    listed = {word.rpartition(".")[2] for row in ROWS for word in words_of(row)}
    parts = [node for node in program.body if getattr(node, "name", "").startswith("use_")]
    names = {
        node.attr for part in parts for node in ast.walk(part) if isinstance(node, ast.Attribute)
    }
    called = {name for name in names for each in classes if callable(getattr(each, name, None))}
    assert called - listed == set()
