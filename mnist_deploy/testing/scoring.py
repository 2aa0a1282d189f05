"""What the container of a mocked service answers: the tutorial's script, or what the test says.

Requests of the tutorial's ``score.py`` are read by the script itself, so that each of its error
responses is the mock's as well. For any other script a body is JSON.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from flask import Request, Response
from requests import RequestException
from requests.structures import CaseInsensitiveDict

from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import DataError
from mnist_deploy.tutorial import tutorial_file

from .cloud import Answer, Behavior, Rejected, ScriptRaised, Silent

SCRIPT_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
# azureml-core writes its driver with the line ends of the system that it runs on.
DRIVEN = re.compile(rb"realpath\(__file__\)\), '([^']+)'\)\r?\ndriver_module_spec")
MODEL_FILES = (".pkl", ".pickle", ".joblib")


@dataclass
class Call:
    """A request to a mocked service, and what the mock has found out about it.

    Attributes
    ----------
    patience : float or None
        Seconds that the sender waits for the answer; None for ever.
    format : str
        ``json``, ``idx`` or, for anything else, ``other``.
    json : object
        The parsed body, where it is JSON.
    images : ndarray of float64, shape (n, features), or None
        The rows of numbers in the body.
    """

    method: str
    path: str
    query: str
    headers: CaseInsensitiveDict
    body: bytes
    patience: float | None
    format: str = "other"
    json: Any = None
    images: np.ndarray | None = None

    def request(self) -> Request:
        """The request as Microsoft's inference server hands it to a script."""
        environ = {
            "REQUEST_METHOD": self.method,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "CONTENT_LENGTH": str(len(self.body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
        }
        return Request(environ)


def find_format(body: bytes) -> tuple[str, Any]:
    """(``json``, its value), (``idx``, None) or (``other``, None)."""
    try:
        plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    except (OSError, EOFError, zlib.error):
        return "other", None
    if plain.startswith(b"\0\0"):
        return "idx", None
    try:
        return "json", json.loads(plain)
    except (ValueError, RecursionError):
        return "other", None


def make_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, failed: bool = False
) -> Response:
    """What Microsoft's inference server makes of the value that ``run()`` returned."""
    text = json.dumps({} if value is None else value, default=to_json)
    response = Response(text, status, headers, mimetype="application/json")
    response.headers["x-ms-run-function-failed"] = str(failed)
    return response


def to_json(value: Any) -> Any:
    """NumPy's values as lists and numbers, a table of pandas as a list of records."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"run() returned a {type(value).__name__}, which JSON cannot hold.")


def fail(message: str, status: int = 500) -> Response:
    return make_response({"message": message}, status, failed=status == 500)


class Script:
    """What answers in a mocked container.

    Parameters
    ----------
    app : Path
        The container's ``app`` folder, with the script and the models.
    name : str
        The script, below `app`.
    deployment : str
        Whose answers the test may have set: a service, or ``endpoint/deployment``.
    log : callable
        Appends lines to the container's log.
    """

    def __init__(
        self,
        app: Path,
        name: str,
        deployment: str,
        behavior: Behavior,
        log: Callable[[str], object],
    ) -> None:
        self._deployment, self._behavior, self._log = deployment, behavior, log
        self._models = sorted(
            file for file in (app / "azureml-models").rglob("*") if file.suffix in MODEL_FILES
        )
        self.text = read_script(app, name)
        self._tutorial: Any = None
        if self.text == tutorial_script():
            self._tutorial = load_tutorial()
            model = self._model
            self._tutorial.features = getattr(model, "n_features_in_", 784)
            if model is not None:
                self._tutorial.predict = self._tutorial.choose_predict(model)

    @property
    def _model(self) -> Any:
        """The first model that can be loaded, or None."""
        for file in self._models:
            try:
                return load_model(file.read_bytes())
            except Exception:  # an error of any class: the file is no pickle
                continue
        return None

    def answer(self, call: Call) -> Response:
        """Answer a request to the container.

        Raises
        ------
        Rejected, Silent, requests.RequestException
            As the test has set.
        AssertionError
            A check within the test's own answer failed.
        """
        if call.path != "/score":
            return self._answer_elsewhere(call)
        try:
            if getattr(self._behavior.answer_of(self._deployment), "ignores_body", False):
                return self._wrap(self._ask(None))
            return self._answer_tutorial(call) if self._tutorial else self._answer_json(call)
        except ScriptRaised as raised:
            self._log("".join(traceback.format_exception(raised.__cause__)))
            return fail(SCRIPT_FAILED)

    def _answer_elsewhere(self, call: Call) -> Response:
        if call.path == "/" and call.method in ("GET", "HEAD"):
            return Response("Healthy", mimetype="text/html")
        return fail(
            "The requested URL was not found on the server. If you entered the URL manually please "
            "check your spelling and try again.",
            404,
        )

    def _answer_tutorial(self, call: Call) -> Response:
        script, request = self._tutorial, call.request()
        if call.method not in ("GET", "POST", "OPTIONS"):
            return fail("The method is not allowed for the requested URL.", 405)
        if call.method != "POST":
            return self._wrap(script.run(request))
        try:
            blocks = [
                script.intensities(block) for block in script.read_images(script.read_body(request))
            ]
            call.images = np.concatenate([np.empty((0, script.features)), *blocks])
        except script.Rejected as rejection:
            return make_response({"message": str(rejection)}, rejection.status)
        except ValueError as error:
            raise ScriptRaised from error
        return self._wrap(self._ask(call.images))

    def _answer_json(self, call: Call) -> Response:
        if call.method == "OPTIONS":
            return make_response("")
        if call.method not in ("GET", "POST"):
            return fail("The method is not allowed for the requested URL.", 405)
        if b"rawhttp" in self.text:
            return self._wrap(self._ask(self._read_raw(call)))
        try:
            text = call.body.decode()
        except UnicodeDecodeError as error:
            return fail(f"Input cannot be decoded as UTF-8: {error}", 400)
        if call.format != "json":  # run() gets a text that is no JSON
            try:
                json.loads(text)
            except ValueError as error:
                raise ScriptRaised from error
        return self._wrap(self._ask(self._read_json(call)))

    def _read_json(self, call: Call) -> Any:
        """The JSON: an array where it is one, or where ``data`` is one."""
        value = call.json
        if isinstance(value, dict) and set(value) == {"data"}:
            value = value["data"]
        found = as_array(value)
        if found is None:
            return call.json
        call.images = found if found.ndim == 2 else None
        return found

    def _read_raw(self, call: Call) -> Any:
        if call.format == "idx":
            try:
                images = decode_idx(
                    gzip.decompress(call.body) if call.body.startswith(b"\x1f\x8b") else call.body
                )
            except DataError as error:
                raise ScriptRaised from error
            scale = 255.0 if images.dtype == np.uint8 else 1.0
            call.images = images.reshape(len(images), -1) / scale
            return call.images
        return self._read_json(call) if call.format == "json" else call.body

    def _ask(self, data: Any) -> Any:
        """What the test, or else the model's ``predict``, answers to a call of ``run()``."""
        answer = self._behavior.answer_of(self._deployment)
        try:
            return (answer or self._predict)(data)
        except (Rejected, ScriptRaised, Silent, RequestException):
            raise
        except AssertionError as error:  # a check of the test's, within the answer
            self._behavior.note(error)
            raise
        except Exception as error:
            raise ScriptRaised from (self._behavior.note(error) if answer else error)

    def _wrap(self, value: Any) -> Response:
        if isinstance(value, Response):  # an AMLResponse is one
            return value
        try:
            return make_response(value)
        except TypeError as error:
            raise ScriptRaised from self._behavior.note(error)

    @property
    def _predict(self) -> Answer:
        if self._tutorial and self._models and hasattr(self._tutorial, "predict"):
            return self._tutorial.predict
        model = self._model
        if model is None:
            raise AssertionError(
                f"The service {self._deployment} has no pickled model to answer from: set its "
                "answers with mocked_workspace.cloud.answer_with(...)."
            )
        return model.predict


def read_script(app: Path, name: str) -> bytes:
    """The script of a container; of the driver that SDK v1 uploads, the script that it imports."""
    file = app / name
    text = file.read_bytes() if file.is_file() else b""
    driven = DRIVEN.search(text)
    return read_script(app, driven[1].decode()) if driven else text


def as_array(value: Any) -> np.ndarray | None:
    """A list of numbers, or of such lists of one length, in float64; else None."""
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
def tutorial_script() -> bytes:
    return tutorial_file("score.py").read_bytes()


def load_tutorial() -> Any:
    """The tutorial's script as a module of its own, before ``init()``."""
    module = types.ModuleType("score")
    exec(compiled_tutorial(), module.__dict__)
    return module


@cache
def compiled_tutorial() -> types.CodeType:
    try:
        import azureml_inference_server_http  # noqa: F401
    except ImportError:  # where there is none, on Windows: what the script takes of it
        package = "azureml_inference_server_http"
        for name in ("", ".api", ".api.aml_request", ".api.aml_response"):
            sys.modules[package + name] = types.ModuleType(package + name)
        request: Any = sys.modules[f"{package}.api.aml_request"]
        request.AMLRequest, request.rawhttp = Request, lambda function: function
        response: Any = sys.modules[f"{package}.api.aml_response"]
        response.AMLResponse = lambda value, status, headers=None, json_str=True: make_response(
            value, status, headers
        )
    return compile(tutorial_script(), "score.py", "exec", dont_inherit=True)
