"""The config.json: search, temporary config, shared use and removal."""

from __future__ import annotations

import json

import pytest

from mnist_deploy.local.cli.config_file import (
    TEMPORARY_CONFIG,
    find_config,
    has_temporary_content,
    read_subscription,
    write_temporary_config,
)

SCOPE = "/subscriptions/a-b/resourceGroups/r/providers/p/workspaces/w/projects/x"


@pytest.mark.parametrize(
    ("content", "subscription"),
    [
        ({"subscription_id": "a-b", "resource_group": "r", "workspace_name": "w"}, "a-b"),
        ({"Id": None, "Scope": SCOPE}, "a-b"),  # as Workspace.write_config leaves it
        ({"compilerOptions": {}}, None),
        ({"subscription_id": 5}, None),
        ({"Scope": "/"}, None),
        ([], None),
        (None, None),
    ],
)
def test_subscription_is_read_from_the_config(tmp_path, content, subscription):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    assert read_subscription(file) == subscription
    file.write_bytes(b"\xff{")
    assert read_subscription(file) is read_subscription(tmp_path / "missing.json") is None


def test_config_is_found_where_the_sdk_searches(tmp_path):
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    assert find_config(below) is None
    for place in ("config.json", "aml_config/project.json", ".azureml/config.json"):
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
        assert find_config(below) == file  # each comes before the one above
    file.write_bytes(TEMPORARY_CONFIG)
    assert find_config(below) is None


def test_temporary_config_is_shared_and_removed_by_its_last_user(tmp_path):
    file = tmp_path / ".azureml" / "config.json"
    for _ in range(2):  # also one that a killed process has left
        with write_temporary_config(tmp_path) as temporary:
            with write_temporary_config(tmp_path):
                assert json.loads(file.read_text())["workspace_name"] == "local"
            assert (temporary, has_temporary_content(file)) == (file, True)
            assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
        assert not any(tmp_path.iterdir())
        file.parent.mkdir()
        file.write_bytes(TEMPORARY_CONFIG)


def test_config_that_was_changed_meanwhile_is_kept(tmp_path):
    with write_temporary_config(tmp_path) as file:
        file.write_text('{"Scope": "mine"}')
    assert file.read_text() == '{"Scope": "mine"}'
    file.unlink()
    with write_temporary_config(tmp_path):
        (file.parent / "other").write_text("")
    assert [path.name for path in file.parent.iterdir()] == ["other"]


def test_unwritable_folder_of_the_config_is_reported(tmp_path):
    (tmp_path / ".azureml").write_text("in the way")
    with pytest.raises(OSError, match="exists"), write_temporary_config(tmp_path):
        raise AssertionError
