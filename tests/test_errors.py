"""The exceptions of mnist_deploy: one tree, with attributes, each of them in use."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mnist_deploy import errors

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
]


def test_exceptions_share_a_root_and_have_attributes():
    for each in CLASSES:
        with pytest.raises(errors.MnistDeployError, match="what is wrong"):
            raise each("what is wrong")
    error = errors.DeploymentTimeout("too late", state="Transitioning", logs="Traceback")
    assert (error.state, error.logs) == ("Transitioning", "Traceback")
    unsent = errors.DeploymentError("not sent")
    assert (unsent.state, unsent.logs) == (None, "")
    assert errors.PayloadTooLarge("too large", status=413).status == 413
    assert errors.ServiceUnavailable("not reachable").status is None


def test_exceptions_are_all_used():
    here = Path(errors.__file__)
    files = [file for file in here.parent.rglob("*.py") if file != here]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    unused = {each.__name__ for each in CLASSES} - set(re.findall(r"\b[A-Z]\w+\b", text))
    assert unused <= {"MnistDeployError"}
