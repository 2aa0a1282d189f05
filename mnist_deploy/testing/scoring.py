"""The responses of a mocked container, from the tutorial's script or the test's settings.

The tutorial's ``score.py`` itself parses its requests, so that the mock and a service reject the
same requests. Requests to other scripts are parsed as JSON.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
import traceback
import types
import zlib
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from flask import Request, Response
from requests import RequestException

from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import DataError
from mnist_deploy.local.platforms import RUN_FAILED
from mnist_deploy.tutorial import tutorial_file

from .behavior import Answer, Behavior, NoResponse, Rejected, ScriptRaised, respond

# The messages of Microsoft's inference server.
SCRIPT_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
METHOD_NOT_ALLOWED = "The method is not allowed for the requested URL."
NOT_FOUND = (
    "The requested URL was not found on the server. If you entered the URL manually please "
    "check your spelling and try again."
)
# azureml-core writes its driver with the line ends of the operating system.
DRIVEN = re.compile(rb"realpath\(__file__\)\), '([^']+)'\)\r?\ndriver_module_spec")
MODEL_FILES = (".pkl", ".pickle", ".joblib")
READ_TIMEOUT = "mnist_deploy.read_timeout"  # in the environ: seconds, or None
PORT_TIMEOUT = 60.0  # seconds, assumed for a client with an unknown time-out


class Call(Request):
    """A request to a mocked service, and the rows of numbers in its body."""

    images: np.ndarray | None = None

    @cached_property
    def body(self) -> bytes:
        return self.get_data()

    @property
    def timeout(self) -> float | None:
        """Return the client's read time-out in seconds; None without a time-out."""
        return self.environ.get(READ_TIMEOUT, PORT_TIMEOUT)

    @cached_property
    def plain(self) -> bytes:
        """Return the decompressed body."""
        try:
            return gzip.decompress(self.body) if self.body.startswith(b"\x1f\x8b") else self.body
        except (OSError, EOFError, zlib.error):
            return self.body

    @cached_property
    def document(self) -> tuple[str, Any]:
        """Return (``json``, value), (``idx``, None) or (``other``, None)."""
        if self.plain.startswith(b"\0\0"):
            return "idx", None
        try:
            return "json", json.loads(self.plain)
        except (ValueError, RecursionError):
            return "other", None


def make_response(value: Any, status: int = 200, *, failed: bool = False) -> Response:
    """Serialize the result of ``run()``, as Microsoft's inference server does."""
    text = json.dumps({} if value is None else value, default=to_json)
    return Response(text, status, {RUN_FAILED: str(failed)}, mimetype="application/json")


def to_json(value: Any) -> Any:
    """Convert NumPy's values to lists and numbers, and a table to a list of records."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"run() returned a {type(value).__name__}, which JSON cannot represent.")


def error_response(message: str, status: int) -> Response:
    return make_response({"message": message}, status, failed=status == 500)


class Script:
    """The script `name` of a mocked container; the folder `app` also contains the models."""

    def __init__(
        self, app: Path, name: str, deployment: str, behavior: Behavior, log: Callable[[str], Any]
    ) -> None:
        self._deployment, self._behavior, self._log = deployment, behavior, log
        self._app, self._reading = app, threading.Lock()
        text = read_script(app, name)
        self._is_raw = b"rawhttp" in text
        self._tutorial: Any = None
        tutorial, code = tutorial_script()
        if text == tutorial:
            self._tutorial = types.ModuleType("score")  # one for each container
            exec(code, self._tutorial.__dict__)
            self._tutorial.features = getattr(self._model, "n_features_in_", 784)

    @cached_property
    def _model(self) -> Any:
        """Return the first registered model that can be loaded, or None."""
        for file in sorted((self._app / "azureml-models").rglob("*")):
            try:
                if file.suffix in MODEL_FILES:
                    return load_model(file.read_bytes())
            except Exception:  # of any class: the file is not a pickle
                continue
        return None

    def answer(self, call: Call) -> Response:
        """Respond to a request to the container.

        Raises
        ------
        Rejected, NoResponse, requests.RequestException
            The test has set this error.
        AssertionError
            A check in the test's own function failed.
        """
        if call.path != "/score":
            if call.path == "/" and call.method in ("GET", "HEAD"):
                return Response("Healthy", mimetype="text/html")
            return error_response(NOT_FOUND, 404)
        try:
            if self._behavior.fails(self._deployment):
                return self._respond(None)
            if call.method not in ("GET", "POST", "OPTIONS"):
                return error_response(METHOD_NOT_ALLOWED, 405)
            return self._run_tutorial(call) if self._tutorial else self._run_other(call)
        except ScriptRaised as raised:
            self._log("".join(traceback.format_exception(raised.__cause__)))
            return error_response(SCRIPT_FAILED, 500)

    def _run_tutorial(self, call: Call) -> Response:
        """Run the script's parser; respond with labels unless the script rejects the images."""
        script, blocks = self._tutorial, []

        def keep(images: np.ndarray) -> np.ndarray:
            blocks.append(script.intensities(images))
            return np.zeros(len(images))

        try:
            with self._reading:
                script.predict = keep
                value = script.run(Request(call.environ | {"wsgi.input": io.BytesIO(call.body)}))
        except ValueError as error:
            raise ScriptRaised from error
        if isinstance(value, Response):
            return value
        call.images = np.concatenate([np.empty((0, script.features)), *blocks])
        return self._respond(call.images)

    def _run_other(self, call: Call) -> Response:
        if call.method == "OPTIONS":
            return make_response("")
        format_, value = call.document
        if self._is_raw and format_ == "idx":
            return self._respond(self._read_idx(call))
        if self._is_raw and format_ == "other":
            return self._respond(call.body)
        if not self._is_raw:
            try:
                text = call.body.decode()
                if format_ != "json":
                    json.loads(text)
            except UnicodeDecodeError as error:
                return error_response(f"Input cannot be decoded as UTF-8: {error}", 400)
            except (ValueError, RecursionError) as error:  # run() would parse the text
                raise ScriptRaised from error
        rows = value["data"] if isinstance(value, dict) and set(value) == {"data"} else value
        array = as_array(rows)
        call.images = array if array is not None and array.ndim == 2 else None
        return self._respond(value if array is None else array)

    def _read_idx(self, call: Call) -> np.ndarray:
        try:
            images = decode_idx(call.plain)
        except DataError as error:
            raise ScriptRaised from error
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        call.images = images.reshape(len(images), -1) / scale
        return call.images

    def _respond(self, data: Any) -> Response:
        """Serialize the result of the test's function, or else of the model, for the data."""
        answer = self._behavior.find("answer", self._deployment, None)
        try:
            value = respond(answer or self._predict, data)
            return value if isinstance(value, Response) else make_response(value)
        except (Rejected, ScriptRaised, NoResponse, RequestException):
            raise
        except AssertionError as error:  # a check in the test's function
            self._behavior.record(error)
            raise
        except Exception as error:
            raise ScriptRaised from (self._behavior.record(error) if answer else error)

    @cached_property
    def _predict(self) -> Answer:
        if self._model is None:
            raise AssertionError(
                f"The service {self._deployment} has no pickled model for its responses: set them "
                "with mocked_workspace.cloud.respond_with(...)."
            )
        if self._tutorial:
            return self._tutorial.choose_predict(self._model)
        return self._model.predict


def read_script(app: Path, name: str) -> bytes:
    """Return the script of a container; for SDK v1's driver, the script that the driver imports."""
    file = app / name
    text = file.read_bytes() if file.is_file() else b""
    driven = DRIVEN.search(text)
    return read_script(app, driven[1].decode()) if driven else text


def as_array(value: Any) -> np.ndarray | None:
    """Convert a list of numbers, or of such lists of one length, to float64; else None."""
    if not isinstance(value, list):
        return None
    try:
        found = np.asarray(value)
    except ValueError:  # lists of several lengths
        return None
    return found.astype(np.float64) if found.dtype.kind in "iuf" else None


@lru_cache(maxsize=8)
def load_model(content: bytes) -> Any:
    return joblib.load(io.BytesIO(content))


@cache
def tutorial_script() -> tuple[bytes, types.CodeType]:
    """Return the text of the tutorial's script, and its code."""
    text = tutorial_file("score.py").read_bytes()
    return text, compile(text, "score.py", "exec", dont_inherit=True)
