"""score.py in Microsoft's inference server, and its functions in this process."""

from __future__ import annotations

import ast
import contextlib
import gzip
import http.client
import importlib.util
import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from urllib.parse import urlsplit

import joblib
import numpy as np
import pytest
import requests
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from mnist_deploy.data import load_test_data, load_training_data
from mnist_deploy.data.idx import encode_idx

pytest_plugins = ["scoring_server"]

SCORE_SCRIPT = Path(__file__).resolve().parents[1] / "score.py"
ENVIRONMENT = SCORE_SCRIPT.with_name("environment.yml")


@pytest.fixture(scope="module")
def session():
    with requests.Session() as opened:
        yield opened


@pytest.fixture
def load_script(monkeypatch, tmp_path):
    """A function that loads score.py with a model in this process."""

    def load(model):
        joblib.dump(model, tmp_path / "sklearn_mnist_model.pkl")
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
        spec = importlib.util.spec_from_file_location("entry_module", SCORE_SCRIPT)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        script.init()
        return script

    return load


def score(script, body: bytes):
    return script.run(Request(EnvironBuilder(method="POST", data=body).get_environ()))


def encode_all(pixels: np.ndarray) -> dict[str, bytes]:
    """The same images in each format that the script accepts."""
    rows = pixels.reshape(len(pixels), -1)
    numbers = (rows / 255.0).tolist()
    plain = {
        "the tutorial's JSON": json.dumps({"data": numbers}).encode(),
        "JSON with more in it": json.dumps({"method": "true", "data": numbers, "n": 1}).encode(),
        "uint8 IDX, as published": encode_idx(pixels),
        "uint8 IDX, flat": encode_idx(rows),
        "float64 IDX": encode_idx(pixels / 255.0),
        "float64 IDX, flat": encode_idx(rows / 255.0),
        "float32 IDX": encode_idx((pixels / 255.0).astype(np.float32)),
    }
    packed = {f"{name}, gzip": gzip.compress(body) for name, body in plain.items()}
    half = len(plain["uint8 IDX, flat"]) // 2
    members = [plain["uint8 IDX, flat"][:half], plain["uint8 IDX, flat"][half:]]
    return plain | packed | {"two gzip members": b"".join(map(gzip.compress, members))}


@pytest.mark.parametrize("count", [1, 255, 256, 257, 513])
def test_formats_all_give_the_labels_of_predict(session, scoring_uri, digits, count):
    pixels, labels = digits[0][:count], digits[1][:count].tolist()
    for form, body in encode_all(pixels).items():
        answer = session.post(scoring_uri, data=body)
        assert (form, answer.status_code, answer.json()) == (form, 200, labels)
        assert answer.headers["Content-Type"] == "application/json"


def test_integers_and_empty_requests_are_scored(session, scoring_uri, digits_model):
    black_and_white = (digits_model[1][:5] > 0.5).astype(int)
    answer = session.post(scoring_uri, json={"data": black_and_white.tolist()})
    assert answer.json() == digits_model[0].predict(black_and_white).tolist()
    for shape in ((0, 28, 28), (0, 784)):
        body = encode_idx(np.zeros(shape, np.uint8))
        assert session.post(scoring_uri, data=body).json() == []
    assert session.post(scoring_uri, data=b'{"data": []}').json() == []


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "text/plain", "application/x-www-form-urlencoded", "a/b; c=d"],
)
def test_content_type_is_ignored(session, scoring_uri, digits, content_type):
    for body in encode_all(digits[0][:3]).values():
        answer = session.post(scoring_uri, data=body, headers={"Content-Type": content_type})
        assert answer.json() == digits[1][:3].tolist()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_scores_an_idx_file(scoring_uri, digits, tmp_path):
    file = tmp_path / "images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(encode_idx(digits[0])))
    command = ["curl", "--silent", "--noproxy", "*", "--data-binary", f"@{file}", scoring_uri]
    completed = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert json.loads(completed.stdout) == digits[1].tolist()


def test_chunked_body_is_scored(session, scoring_uri, digits):
    body = encode_idx(digits[0][:300])
    chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))
    assert session.post(scoring_uri, data=chunks).json() == digits[1][:300].tolist()


def test_options_is_accepted_and_other_methods_are_rejected(session, scoring_uri, digits):
    options = session.options(scoring_uri)
    assert (options.status_code, options.content) == (200, b"")
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = session.request(method, scoring_uri, data=encode_idx(digits[0][:1]))
        assert answer.status_code == 405
        assert answer.json()["message"]
    assert session.head(scoring_uri).status_code == 405
    assert session.post(scoring_uri, data=encode_idx(digits[0][:1])).status_code == 200


def test_body_above_the_limit_is_rejected_with_413(session, scoring_uri, digits):
    limit = 128 * 2**20

    def chunks():
        for _ in range(limit // 2**20 + 1):
            yield bytes(2**20)

    for body in (bytes(limit + 1), chunks()):
        answer = session.post(scoring_uri, data=body)
        assert answer.status_code == 413
        assert "larger than 134217728 bytes" in answer.json()["message"]
    assert session.post(scoring_uri, data=encode_idx(digits[0][:1])).json() == [digits[1][0]]


BOMBS = {
    "IDX header with too many images": gzip.compress(encode_idx(np.zeros((1, 784), np.uint8))[:4])
    + gzip.compress(b"\xff\xff\xff\xff\0\0\x03\x10" + bytes(2**20)),
    "IDX with more bytes": gzip.compress(
        encode_idx(np.zeros((1, 784), np.uint8)) + bytes(2**28), 1
    ),
    "JSON with more bytes": gzip.compress(b'{"data": [' + b" " * 2**28, 1),
}


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_bomb_is_rejected(session, scoring_uri, digits, name):
    answer = session.post(scoring_uri, data=BOMBS[name])
    assert answer.status_code in (400, 413)
    assert any(word in answer.json()["message"] for word in ("more bytes than", "unpack"))
    assert session.post(scoring_uri, data=encode_idx(digits[0][:1])).json() == [digits[1][0]]


@contextlib.contextmanager
def connected(uri: str):
    connection = http.client.HTTPConnection(urlsplit(uri).netloc, timeout=30)
    connection.connect()
    connection.auto_open = 0
    yield connection
    connection.close()


def test_connection_stays_open_after_a_rejection(scoring_uri, digits):
    with connected(scoring_uri) as connection:
        for body, status in ((b"nonsense", 400), (encode_idx(digits[0][:1]), 200)):
            connection.request("POST", "/score", body)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (status, True)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (("Content-Length", "1000"), b"\0\0\x08\x03"),
        (("Transfer-Encoding", "chunked"), b"zz\r\nabc\r\n"),
        (("Transfer-Encoding", "chunked"), b"5\r\nabcdeXX0\r\n\r\n"),
        (("Transfer-Encoding", "chunked"), b"ffff\r\nshort"),
    ],
)
def test_incomplete_body_is_rejected(scoring_uri, header, body):
    with connected(scoring_uri) as connection:
        connection.putrequest("POST", "/score")
        connection.putheader(*header)
        connection.endheaders(body)
        connection.sock.shutdown(1)
        response = connection.getresponse()
        assert response.status == 400
        assert "could not be read to its end" in json.load(response)["message"]


def test_memory_does_not_grow_with_the_number_of_images(load_script, digits_model):
    script = load_script(digits_model[0])
    body = gzip.compress(encode_idx(np.zeros((100_000, 784), np.uint8)), 1)
    tracemalloc.start()
    labels = score(script, body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(labels) == 100_000
    assert peak < 16e6  # the pixels alone are 78 MB


RNG = np.random.default_rng(7)
X = RNG.random((400, 12))
Y = np.argmax(X[:, :4] + 0.2 * RNG.random((400, 4)), axis=1)


@pytest.mark.parametrize(
    ("classifier", "y"),
    [
        (LogisticRegression(), Y),
        (LogisticRegression(), np.array(list("abcd"))[Y]),
        (LogisticRegression(), Y > 1),
        (LogisticRegression(fit_intercept=False), Y),
        (OneVsRestClassifier(LogisticRegression()), Y),
        (RidgeClassifier(), Y),
        (SVC(kernel="linear"), Y % 3),  # as many pairs as classes: coef_ looks like one-vs-rest
        (RandomForestClassifier(n_estimators=5, random_state=1), Y),
    ],
    ids=str,
)
def test_labels_of_any_classifier_are_those_of_predict(load_script, classifier, y):
    model = classifier.fit(X, y)
    expected = model.predict(X).tolist()
    script = load_script(model)
    assert score(script, json.dumps({"data": X.tolist()}).encode()) == expected
    assert score(script, encode_idx(X)) == expected
    assert score(script, encode_idx(X.reshape(400, 3, 4))) == expected


def test_tutorials_model_is_scored_without_predict(load_script, digits_model, monkeypatch):
    model, X_test = digits_model
    expected = model.predict(X_test).tolist()
    script = load_script(model)
    monkeypatch.setattr(LogisticRegression, "predict", None)
    assert score(script, encode_idx(X_test)) == expected


def test_close_scores_are_decided_in_double_precision(load_script):
    """With two classes whose scores differ by less than single precision resolves."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (2000, 12), dtype=np.uint8)
    model = LogisticRegression().fit(X, Y)
    model.coef_[1] = model.coef_[0] + 1e-9 * rng.standard_normal(12)
    model.intercept_[1] = model.intercept_[0]
    expected = model.predict(pixels / 255.0)
    single = (pixels / np.float32(255)) @ model.coef_.T.astype(np.float32)
    assert (np.argmax(single + model.intercept_.astype(np.float32), axis=1) != expected).any()
    assert score(load_script(model), encode_idx(pixels)) == expected.tolist()


@pytest.mark.slow
def test_labels_of_all_mnist_images_are_those_of_predict(load_script, genuine_dir, genuine_model):
    script = load_script(genuine_model)
    for images, _ in (load_training_data(genuine_dir), load_test_data(genuine_dir)):
        expected = genuine_model.predict(images).tolist()
        assert score(script, encode_idx(np.rint(images * 255).astype(np.uint8))) == expected


def test_message_states_why_a_request_is_rejected(session, scoring_uri):
    header = encode_idx(np.zeros((1, 784), np.uint8))[:4]
    too_many = header + b"\xff\xff\xff\xff\0\0\x03\x10"
    for status, method, body, message in (
        (400, "POST", b"", 'the request is empty; expected {"data": [[...], ...]} or an IDX file.'),
        (405, "GET", b"", "GET is not supported; POST images."),
        (413, "POST", too_many,
         "4294967295 images unpack to more than 134217728 bytes; send fewer."),
    ):  # fmt: skip
        answer = session.request(method, scoring_uri, data=body)
        assert (answer.status_code, answer.json()) == (status, {"message": message})
        assert answer.headers["x-ms-run-function-failed"] == "False"


def test_missing_model_file_is_named(load_script, monkeypatch, tmp_path, digits_model):
    script = load_script(digits_model[0])
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"elsewhere/sklearn_mnist_model\.pkl"):
        script.init()


def test_environment_pins_each_import_of_the_script():
    imported = set()
    for node in ast.walk(ast.parse(SCORE_SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    *conda, pip = yaml.safe_load(ENVIRONMENT.read_text())["dependencies"]
    assert "python=3.11" in conda
    pinned = dict(line.split("==") for line in pip["pip"])
    module_of = {
        "scikit-learn": "sklearn",
        "azureml-inference-server-http": "azureml_inference_server_http",
    }
    not_imported = {
        "azureml-defaults",
        "scipy",
    }  # for scripts with Model.get_model_path; for sklearn
    installed = {module_of.get(name, name) for name in pinned.keys() - not_imported}
    assert imported - sys.stdlib_module_names == installed
