"""What is registered at the start: the outcome of the tutorial's part one, without training."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from azureml.core import Environment, Model, Workspace

from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

from .backend import Backend
from .digits import pickled_model

_TAGS = {"data": "MNIST", "method": "sklearn"}


def stock_mock(backend: Backend) -> None:
    """Put ``sklearn_mnist:1`` and ``tutorial-env:1`` behind a mocked workspace."""
    file = f"LocalUpload/start/{MODEL_FILE}"
    backend.artifacts.contents[file] = pickled_model()
    asset = backend.assets.create_asset(MODEL_NAME, [{"prefix": file}])
    url = f"aml://asset/{asset.id}"
    backend.models.register_model(MODEL_NAME, url, tags=_TAGS, properties=_properties())
    backend.environments.reply("PUT", [ENVIRONMENT_NAME], _definition())


def stock(ws: Workspace, folder: Path) -> None:
    """Register ``sklearn_mnist`` and ``tutorial-env`` in any workspace, by way of a folder."""
    (folder / MODEL_FILE).write_bytes(pickled_model())
    with _working_in(folder):  # the SDK registers no file from outside
        Model.register(ws, MODEL_FILE, MODEL_NAME, tags=_TAGS, properties=_properties())
    build_scoring_environment(ENVIRONMENT_NAME).register(ws)


def _properties() -> dict[str, str]:
    sha256 = hashlib.sha256(pickled_model()).hexdigest()
    return {"scikit-learn": version("scikit-learn"), "sha256": sha256}


@cache
def _definition() -> dict[str, Any]:
    return Environment._serialize_to_dict(build_scoring_environment(ENVIRONMENT_NAME))


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
