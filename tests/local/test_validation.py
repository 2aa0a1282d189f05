"""Values that both REST APIs reject before anything is kept."""

from __future__ import annotations

import pytest

from mnist_deploy.local import validation
from mnist_deploy.local.core.faults import Invalid

ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 7)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: 2026-01-01\n", r"holds datetime.date\(2026, 1, 1\) at name"),
        ("name: .nan\n", "holds nan at name"),
        ("name: 99999999999999999999\n", "JSON cannot hold"),
        ("name:\n  ~: x\n", "has the key None at name"),
        ("name:\n  true: x\n", "has the key True at name"),
        ("name: &a [*a]\n", "more than 50 levels"),
        ('name: "\\ud800"\n', "half of a surrogate pair"),
        (ALIASES, "more than 10000 values"),
        (f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 20)}]\n", "more than 1000000 characters"),
        ("x" * 1_000_001, "is longer than 1000000 characters"),
        ("- a list", "is not a mapping"),
        ("a: [", "is not YAML"),
        ("dependencies: numpy", "dependencies are not a list"),
        ("dependencies: [1.5]", "dependency 1.5 is not a text"),
        ("dependencies: [pip: numpy]", "pip is not a list"),
        ("dependencies: [pip: [1]]", "pip requirement 1 is not a text"),
    ],
)
def test_conda_file_that_json_or_pip_cannot_hold_is_rejected(text, reason):
    """JSON (RFC 8259) has neither dates nor NaN, and only texts as keys."""
    with pytest.raises(Invalid, match=reason):
        validation.parse_conda_file(text)


def test_conda_file_with_aliases_is_read():
    text = "channels: &c [conda-forge]\nmore: *c\nempty: ~\nratio: 0.5\ndependencies: [python=3.11]"
    assert validation.parse_conda_file(text)["more"] == ["conda-forge"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('numpy; sys_platform ~= "linux"', "cannot evaluate the marker"),
        ('numpy; extra_name == "x"', "cannot read the requirement"),
        ("numpy==", "cannot read the requirement"),
        ("two words", "cannot read the requirement"),
    ],
)
def test_requirement_that_pip_cannot_read_is_rejected(line, reason):
    """PEP 508, and its section on environment markers."""
    with pytest.raises(Invalid, match=reason):
        validation.check_requirement(line)


@pytest.mark.parametrize(
    "line",
    ["numpy", "numpy>=1,<3  # pinned", "# nothing", "", "-r more.txt", "--extra-index-url x",
     "git+https://x/y.git", "./here", "mine.whl", "x @ https://x/x.whl", "a[b]==1.*",
     'numpy; python_version >= "3.8"'],
)  # fmt: skip
def test_requirement_that_pip_reads_is_accepted(line):
    """pip's "Requirements File Format"."""
    validation.check_requirement(line)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("", "x", "a name without '='"),
        ("A=B", "x", "a name without '='"),
        ("A\0", "x", "a name without '='"),
        ("N", 3, r"environment_variables\['N'\] is 3, but a text is expected, such as '3'"),
        ("A", "x\0y", r"environment_variables\['A'\]: a value without the character NUL"),
        ("A", "\ud800", "surrogate pairs"),
        ("A", "x" * (128 * 1024), "longer than 131071 bytes"),
        *(("WORKER_COUNT", count, "a number from 1 to") for count in ("²", "9" * 5000, "0", "")),
    ],
)
def test_environment_variable_that_no_process_can_have_is_rejected(name, value, reason):
    """execve(2), environ(7), and the inference server's own variable WORKER_COUNT."""
    with pytest.raises(Invalid, match=reason):
        validation.check_variables({name: value})


def test_environment_variables_are_accepted():
    validation.check_variables({"A.b-c": "é" * 1000, "WORKER_COUNT": "64", "EMPTY": None})


@pytest.mark.parametrize("name", ["", "bad name!", "modèle", "n" * 256, ".x", "-x", "a/b", "a\n"])
def test_asset_name_that_azure_rejects_is_rejected(name):
    """ModelVersions_CreateOrUpdate (REST): the pattern of ``name``."""
    with pytest.raises(Invalid, match="Expected 1 to 255 letters"):
        validation.check_asset_name("model", name)


def test_prefix_of_curated_environments_is_reserved():
    """how-to-use-environments: names that begin with AzureML are curated environments."""
    with pytest.raises(Invalid, match="reserved for the curated environments"):
        validation.check_environment_name("AzureML-mine")
    validation.check_environment_name("my-AzureML")


def test_version_without_a_valid_successor_is_rejected():
    with pytest.raises(Invalid, match="too large"):
        validation.check_version_number("model", validation.MAX_VERSION + 1, False)
    validation.check_version_number("model", validation.MAX_VERSION, False)
    validation.check_version_number("model", validation.MAX_VERSION + 1, True)


def test_choice_is_returned_in_azure_spelling():
    assert validation.check_choice("o", "disabled", ("Enabled", "Disabled")) == "Disabled"
    assert validation.check_choice("o", None, ("Enabled",)) is None
    with pytest.raises(Invalid, match="o is 'maybe', but one of Enabled, Disabled is expected"):
        validation.check_choice("o", "maybe", ("Enabled", "Disabled"))
