"""The pytest plugin in a repository of its users."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import mnist_deploy as md
import mnist_deploy.testing

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[1] / "examples"
_WITHOUT = ("anyio", "cacheprovider", "xdist", "hypothesispytest")  # whose import takes seconds
BARE = ("-W", "ignore", *(f"-pno:{name}" for name in _WITHOUT))


@pytest.fixture(scope="module", autouse=True)
def _imported_sdks():
    """Import what the sessions in this process import: pytester removes it after each of them.

    With importlib_metadata, which MLflow imports, goes the finder of installed packages; and a
    second flask does not know the request context of the first.
    """
    import mlflow  # noqa: F401

    with mnist_deploy.testing.mock_client():
        pass
    with mnist_deploy.testing.mock_workspace() as ws:
        inference_config = md.build_inference_config(md.fetch_environment(ws))
        model = md.fetch_model(ws)
        service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), "svc")
        with md.closing_service(service):
            md.call_service(service, np.zeros((1, 784)))


@pytest.fixture
def run(pytester):
    """Run a test module that has these lines; in this process, where the SDK is loaded."""

    def run(source, *arguments):
        pytester.makepyfile(textwrap.dedent(source))
        return pytester.runpytest_inprocess(*BARE, "--strict-markers", *arguments)

    return run


README = Path(mnist_deploy.testing.__file__).with_name("README.md").read_text(encoding="utf-8")


def read_code(chapter):
    """The Python code of one chapter of the README."""
    text = README.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


RECIPES = "\n\n".join(read_code("Recipes"))


def test_recipes_of_the_readme_pass(run):
    run(RECIPES, "-k", "not local").assert_outcomes(passed=14, deselected=1)


def test_example_of_the_readme_is_the_file_that_the_suite_runs():
    examples = Path(__file__).parents[1] / "examples"
    files = ("digit_report.py", "test_digit_report.py")
    assert read_code("Example") == [(examples / name).read_text() for name in files]


def test_fixtures_and_marker_are_documented(run):
    output = run("def test(mocked_workspace): ...", "--fixtures", "-v").stdout.str()
    for name in ("mocked_workspace", "mocked_client", "local_workspace [session scope]", "mnist_"):
        assert name in output
    markers = run("def test(): ...", "--markers").stdout.str()
    assert "@pytest.mark.mocked_workspace(assert_all_used=True, assert_all_deleted" in markers


@pytest.mark.parametrize("line", ["", 'pytest_plugins = ["mnist_deploy.testing"]'])
@pytest.mark.parametrize("options", [(), ("-p", "mnist_deploy.testing")])
def test_plugin_is_registered_once(run, line, options):
    run(f"{line}\ndef test(mocked_workspace): ...", *options).assert_outcomes(passed=1)


def test_plugin_is_loaded_by_its_name_without_autoload(run, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    line = 'pytest_plugins = ["mnist_deploy.testing"]'
    run(f"{line}\ndef test(mocked_workspace): ...").assert_outcomes(passed=1)
    run("def test(mocked_workspace): ...").assert_outcomes(errors=1)


class TestMarker:
    def test_marker_of_a_test_overrides_that_of_its_module(self, run):
        result = run(
            """
            import pytest
            pytestmark = pytest.mark.mocked_workspace(assert_all_used=False)

            def test_module(mocked_workspace):
                mocked_workspace.cloud.reject(503)

            @pytest.mark.mocked_workspace(assert_all_used=True)
            def test_own(mocked_client):  # the marker is of both
                mocked_client.cloud.reject(503)
            """
        )
        result.assert_outcomes(passed=2, errors=1)
        result.stdout.fnmatch_lines("*AssertionError: cloud.reject(503): never used")

    @pytest.mark.parametrize("arguments", ["assert_all_gone=True", "True"])
    def test_wrong_argument_is_an_error(self, run, arguments):
        run(
            f"""
            import pytest
            @pytest.mark.mocked_workspace({arguments})
            def test(mocked_workspace): ...
            """
        ).assert_outcomes(errors=1)


class TestOutcome:
    SERVICE = """
        import pytest, numpy as np, mnist_deploy as md

        @pytest.fixture
        def service(mocked_workspace):
            inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
            model = md.fetch_model(mocked_workspace)
            service = md.deploy_to_aci(
                mocked_workspace, model, inference_config, md.build_aci_config(), "svc"
            )
            with md.closing_service(service):
                yield service
    """

    def test_fixture_is_torn_down_before_the_checks(self, run):
        source = """
        @pytest.mark.mocked_workspace(assert_all_deleted=True)
        def test(service): ...
        """
        run(self.SERVICE + source).assert_outcomes(passed=1)

    def test_error_of_a_function_fails_the_test_itself(self, run):
        source = """
        def test(service, mocked_workspace):
            mocked_workspace.cloud.respond_with(lambda images: images[:, 10_000])
            with pytest.raises(Exception):
                md.call_service(service, np.zeros((1, 784)))
        """
        result = run(self.SERVICE + source)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines("*IndexError*out of bounds*")

    @pytest.mark.parametrize("end", ["assert False", "pytest.skip('later')"])
    def test_failed_or_skipped_test_is_not_checked(self, run, end):
        source = f"""
        @pytest.mark.mocked_workspace(assert_all_deleted=True)
        def test(mocked_workspace):
            mocked_workspace.cloud.reject(503)
            {end}
        """
        outcome = {"failed": 1} if "False" in end else {"skipped": 1}
        run(self.SERVICE + source).assert_outcomes(**outcome)


def test_decorated_test_keeps_its_fixtures(run):
    run(
        """
        import pytest
        from mnist_deploy.testing import mock_workspace

        @pytest.fixture
        @mock_workspace()
        def ours(ws, tmp_path):
            yield ws

        def test_fixture(ours):
            assert ours.models

        @pytest.mark.parametrize("n", [1, 2])
        @mock_workspace()
        def test_function(n, ws, tmp_path):
            assert ws.models

        @mock_workspace()
        class TestClass:
            def test_method(self, tmp_path, ws):
                assert ws.models

            @staticmethod
            def test_static():
                pass
        """
    ).assert_outcomes(passed=5)


@pytest.fixture
def repository(pytester, monkeypatch):
    """The example of the README, which is not the module that the suite's own tests import."""
    monkeypatch.delitem(sys.modules, "digit_report", raising=False)
    for name in ("digit_report.py", "test_digit_report.py"):
        shutil.copy(EXAMPLES / name, pytester.path)
    return pytester


def test_example_passes_and_detects_a_mistake(repository):
    arguments = (*BARE, "-k", "not real")
    repository.runpytest_inprocess(*arguments).assert_outcomes(passed=4, deselected=1)
    code = repository.path / "digit_report.py"
    code.write_text(code.read_text().replace("with md.closing_service(service):", "if True:"))
    repository.runpytest_inprocess(*arguments).assert_outcomes(passed=2, failed=2, deselected=1)


@pytest.mark.processes
def test_example_and_recipe_pass_on_a_real_server(repository):
    repository.makepyfile(RECIPES)
    result = repository.runpytest_inprocess(*BARE, "-k", "local or works_for_real")
    result.assert_outcomes(passed=2, deselected=18)


def test_unused_plugin_imports_no_large_module():
    program = "import sys, pytest; before = set(sys.modules); import mnist_deploy.testing.plugin; "
    program += "print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    ours = {"mnist_deploy", "mnist_deploy.testing", "mnist_deploy.testing.plugin", "lazy_loader"}
    assert set(run.stdout.split()) <= ours
    (entry,) = metadata.distribution("mnist-deploy").entry_points.select(group="pytest11")
    assert (entry.name, entry.value) == ("mnist_deploy.testing", "mnist_deploy.testing.plugin")


@pytest.mark.processes
def test_unittest_needs_no_pytest():
    program = """
import sys; sys.modules["pytest"] = None
from mnist_deploy.testing import mock_workspace
with mock_workspace() as ws: print(*ws.models)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["sklearn_mnist"]
