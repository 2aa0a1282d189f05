"""The commands ``show`` and ``wipe``."""

from __future__ import annotations

import io
import re

import pytest

from mnist_deploy import local
from mnist_deploy.local import cli


@pytest.fixture
def verb(capsys, monkeypatch):
    """Run a command in this process with typed input; returns its exit status and its output."""

    def do(*arguments: str, typed: str = "") -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        monkeypatch.setattr("signal.signal", lambda *_: None)
        status = cli.main(list(arguments))
        return status, capsys.readouterr().out

    return do


def test_show_lists_registered_assets_and_services(verb, local_home, service, monkeypatch):
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(local_home))
    status, shown = verb("show")
    assert status == 0
    place = re.escape(str(local_home))
    assert re.search(rf"in {place}\n  running at https://127\.0\.0\.1:\d+, process \d+", shown)
    assert re.search(r"Models:\n(  .*\n)*  weights:1  \d{4}-\d\d-\d\d \d\d:\d\d\n", shown)
    assert re.search(
        r"Services:\n(  .*\n)*  shared  Healthy  http://127\.0\.0\.1:\d+/score  weights:1", shown
    )


@pytest.mark.processes
def test_show_and_wipe_work_on_a_stopped_workspace(verb, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(home))
    assert "Nothing is registered" in verb("show")[1]
    assert not home.exists()
    local.start(home)
    local.stop(home)
    assert f"Local workspace in {home}\n  not running\nModels: none\n" in verb("show")[1]
    for typed in ("", "no\n"):
        status, output = verb("wipe", typed=typed)
        assert (status, "Nothing was deleted" in output) == (1, True)
    assert (home / "store").exists()
    assert verb("wipe", typed="y\n")[0] == 0
    assert not (home / "store").exists()
    assert "Nothing is registered" in verb("show")[1]


def test_error_is_reported_in_one_line(verb, tmp_path, monkeypatch, capsys):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path / "a file"))
    assert cli.main(["serve"]) == 1
    assert "MNIST_DEPLOY_HOME" in capsys.readouterr().err


def test_undeletable_path_is_reported(tmp_path, monkeypatch, capsys):
    def fail(path: object, ignore_errors: bool = False) -> None:
        if ignore_errors:
            return
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "store").mkdir()
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.rmtree", fail)
    assert cli.main(["wipe", "--yes"]) == 1
    output = capsys.readouterr()
    assert (f"Permission denied: '{tmp_path / 'store'}'" in output.err, output.out) == (True, "")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"accuracy": "0.92", "data": "sample", "other": "x"}, "  accuracy 0.92  data sample"),
        ({}, ""),
    ],
)
def test_tutorial_properties_of_a_model_are_shown(found, line):
    from mnist_deploy.local.cli.show import model_line

    model = {"name": "m", "version": "1", "created": "2026-11-24T08:30:00", "properties": found}
    assert model_line(model) == f"m:1  2026-11-24 08:30{line}"
