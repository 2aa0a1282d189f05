"""A worker process of a batch job: calls ``init()`` once and ``run(mini_batch)`` repeatedly."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from . import mlflow_batch
from .mlflow_batch import InputFileError


@dataclass(frozen=True)
class Message:
    """A message of a worker: its readiness, the results of a mini-batch, or an error.

    Attributes
    ----------
    count : int
        The number of results; Azure counts each result as one scored file.
    rows : str
        The results as lines of the output file; empty for the output action summary_only.
    error : str
        The traceback of an exception; empty without one.
    fails_job : bool
        Whether the error ends the job independently of the error threshold.
    """

    count: int = 0
    rows: str = ""
    error: str = ""
    fails_job: bool = False


def work(connection: Connection, script: str, level: str, keep_rows: bool) -> None:
    """Score each mini-batch received from `connection` until the connection is closed.

    Without a script, the MLflow model of the job scores the files.
    """
    logging.basicConfig(level=level.upper(), stream=sys.stdout)
    try:
        module = load_script(Path(script).absolute()) if script else mlflow_batch
        module.init()
    except Exception:
        connection.send(Message(error=traceback.format_exc()))
        return
    connection.send(Message())
    while True:
        try:
            files = connection.recv()
        except EOFError:
            return
        connection.send(score(module.run, files, keep_rows))


def load_script(path: Path) -> ModuleType:
    """Import a scoring script, with its folder and the code folder on ``sys.path``."""
    sys.path[:0] = [str(path.parent), os.getcwd()]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(run: Callable[[list[str]], Any], files: list[str], keep_rows: bool) -> Message:
    try:
        results = run(files)
        if isinstance(results, str | bytes | dict) or not hasattr(results, "__len__"):
            raise TypeError(
                f"run(mini_batch) returned {type(results).__name__}: expected a list, an array or "
                "a pandas DataFrame with one row for each file."
            )
        return Message(len(results), serialize_rows(results) if keep_rows else "")
    except InputFileError as error:
        return Message(error=str(error), fails_job=True)
    except Exception:
        return Message(error=traceback.format_exc())


def serialize_rows(results: Any) -> str:
    """Convert results to lines; the columns of a DataFrame are separated by spaces, no header."""
    if hasattr(results, "to_csv"):
        return results.to_csv(sep=" ", header=False, index=False)
    return "".join(f"{each}\n" for each in results)
