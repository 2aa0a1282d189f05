"""The tree of files that SDK v1 sends with a snapshot of a run's folder."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.faults import Invalid
from mnist_deploy.local.v1.snapshots import list_tree

FILE = {"name": "train.py", "type": "File"}


@pytest.mark.parametrize("children", [[FILE], {"train.py": FILE}], ids=["list", "object"])
def test_files_are_listed_with_the_paths_of_their_folders(children):
    folder = {"Name": "src", "Type": "Directory", "Children": children}
    assert list(list_tree({"children": [folder, FILE]})) == ["src/train.py", "train.py"]


@pytest.mark.parametrize("children", [1, "train.py", ["train.py"], {"train.py": 1}])
def test_children_that_are_not_objects_are_rejected(children):
    with pytest.raises(Invalid, match="DirTreeNode has children"):
        list(list_tree({"children": children}))
