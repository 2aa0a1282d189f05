"""The mocked and the real service of the tutorial's `score.py` give the same HTTP responses.

Each row of the table is sent to both. Compared are the status, the body and the headers that a
client reads; a mock with rules of its own would let a test pass that fails on a real service.
"""

from __future__ import annotations

import gzip
import http.client
import json
from typing import NamedTuple
from urllib.parse import urlsplit

import azureml.core.webservice.webservice
import numpy as np
import pytest
import requests

import mnist_deploy as md
from mnist_deploy.data.idx import encode_idx
from mnist_deploy.testing.cloud import Clock

HEADERS = ("Content-Type", "x-ms-run-function-failed", "WWW-Authenticate", "Allow")
KEY, WRONG = "the-key-of-both-services", "wrong"
JSON, OCTETS = "application/json", "application/octet-stream"
RNG = np.random.default_rng(20)
UNIT = RNG.random((3, 784)).round(3)
PIXELS = RNG.integers(0, 256, (3, 784))
IDX = encode_idx(PIXELS.astype(np.uint8).reshape(3, 28, 28))
ROW = UNIT[0].tolist()


class Sent(NamedTuple):
    """A request; without a content type, `requests` sends none."""

    body: bytes = b""
    content_type: str | None = JSON
    method: str = "POST"
    key: str | None = KEY
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def dumped(value: object, **options) -> Sent:
    return Sent(json.dumps(value).encode(), **options)


GZIP = (("Content-Encoding", "gzip"),)
REQUESTS = {
    "images between 0 and 1": dumped({"data": UNIT.tolist()}),
    "pixels from 0 to 255": dumped({"data": PIXELS.tolist()}),
    "one image": dumped({"data": [ROW]}),
    "one flat row": dumped({"data": ROW}),
    "a list without data": dumped(UNIT.tolist()),
    "28 by 28": dumped({"data": UNIT.reshape(3, 28, 28).tolist()}),
    "no image": dumped({"data": []}),
    "an empty row": dumped({"data": [[]]}),
    "data is null": dumped({"data": None}),
    "data is a text": dumped({"data": "7"}),
    "data is a number": dumped({"data": 7}),
    "data is an object": dumped({"data": {"0": ROW}}),
    "data is true": dumped({"data": True}),
    "a row of texts": dumped({"data": [["0.5"] * 784]}),
    "a row of booleans": dumped({"data": [[True] * 784]}),
    "a row of nulls": dumped({"data": [[None] * 784]}),
    "a misspelt key": dumped({"dat": [ROW]}),
    "a second key": dumped({"data": [ROW], "more": 1}),
    "an empty object": dumped({}),
    "an empty list": dumped([]),
    "null": dumped(None),
    "a number": dumped(7),
    "a text": dumped("seven"),
    "true": dumped(True),
    "13 features": dumped({"data": [[0.0] * 13]}),
    "785 features": dumped({"data": [[0.0] * 785]}),
    "ragged rows": dumped({"data": [ROW, ROW[:-1]]}),
    "NaN": Sent(json.dumps({"data": [[float("nan")] * 784]}).encode()),
    "infinity": Sent(json.dumps({"data": [[float("inf")] * 784]}).encode()),
    "a negative value": dumped({"data": [[-1.0] * 784]}),
    "a value of 256": dumped({"data": [[256] * 784]}),
    "a value of 1e400": Sent(b'{"data": [[' + b"1e400," * 783 + b"0]]}"),
    "fractions above 1": dumped({"data": [[1.5] * 784]}),
    "an empty body": Sent(b""),
    "white space": Sent(b"  \n"),
    "no JSON": Sent(b"no json"),
    "JSON cut short": Sent(b'{"data": [[0.1, 0.2'),
    "JSON with a comma too many": Sent(b'{"data": [[0.1,]]}'),
    "two documents": Sent(b"{} {}"),
    "JSON in UTF-16": Sent(json.dumps({"data": [ROW]}).encode("utf-16")),
    "JSON with a byte order mark": Sent(b"\xef\xbb\xbf" + json.dumps({"data": [ROW]}).encode()),
    "bytes that are no UTF-8": Sent(b'{"data": "\xff\xfe"}'),
    "deep nesting": Sent(b"[" * 5000 + b"]" * 5000),
    "text/plain": dumped({"data": [ROW]}, content_type="text/plain"),
    "a form": dumped({"data": [ROW]}, content_type="application/x-www-form-urlencoded"),
    "no content type": dumped({"data": [ROW]}, content_type=None),
    "IDX": Sent(IDX, OCTETS),
    "IDX called JSON": Sent(IDX, JSON),
    "IDX cut short": Sent(IDX[:-1], OCTETS),
    "IDX with a byte too many": Sent(IDX + b"\0", OCTETS),
    "IDX cut in its header": Sent(IDX[:7], OCTETS),
    "IDX of labels": Sent(encode_idx(np.arange(3, dtype=np.uint8)), OCTETS),
    "IDX of no image": Sent(encode_idx(np.zeros((0, 28, 28), np.uint8)), OCTETS),
    "IDX of 13 features": Sent(encode_idx(np.zeros((2, 13), np.uint8)), OCTETS),
    "IDX of an unknown type": Sent(b"\0\0\x07\x01\0\0\0\x01\0", OCTETS),
    "IDX in gzip": Sent(gzip.compress(IDX), OCTETS),
    "IDX in gzip cut short": Sent(gzip.compress(IDX)[:-9], OCTETS),
    "JSON in gzip": Sent(gzip.compress(json.dumps({"data": [ROW]}).encode()), headers=GZIP),
    "octets that are nothing": Sent(b"\1\2\3", OCTETS),
    "GET": Sent(method="GET", content_type=None),
    "PUT": dumped({"data": [ROW]}, method="PUT"),
    "DELETE": Sent(method="DELETE", content_type=None),
    "no key": dumped({"data": [ROW]}, key=None),
    "a wrong key": dumped({"data": [ROW]}, key=WRONG),
    "an unknown path": dumped({"data": [ROW]}, path="/unknown"),
}


def deploy(ws):
    service = md.deploy_to_aci(
        ws,
        md.fetch_model(ws),
        md.build_inference_config(md.fetch_environment(ws)),
        md.build_aci_config(auth_enabled=True),
        "same-responses",
    )
    service.regen_key("Primary", set_key=KEY)
    return service


def send(uri: str, sent: Sent) -> tuple[int, object, dict[str, str | None]]:
    headers = dict(sent.headers)
    if sent.content_type:
        headers["Content-Type"] = sent.content_type
    if sent.key:
        headers["Authorization"] = f"Bearer {sent.key}"
    answer = requests.request(
        sent.method, uri + sent.path, data=sent.body, headers=headers, timeout=30
    )
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    return answer.status_code, body, {name: answer.headers.get(name) for name in HEADERS}


@pytest.fixture(scope="module")
def real_responses(local_workspace):
    """What the real service answers, by the name of the request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(azureml.core.webservice.webservice, "time", Clock())
        with md.closing_service(deploy(local_workspace)) as service:
            uri = service.scoring_uri
            return {name: send(uri, sent) for name, sent in REQUESTS.items()}


def test_responses_are_those_of_the_real_service(real_responses, mocked_workspace):
    uri = deploy(mocked_workspace).scoring_uri
    mocked = {name: send(uri, sent) for name, sent in REQUESTS.items()}
    assert {n: (mocked[n], r) for n, r in real_responses.items() if mocked[n] != r} == {}
    assert {status for status, *_ in mocked.values()} >= {200, 400, 401, 404, 405}


@pytest.mark.mocked_workspace(listen=True)
def test_port_answers_clients_other_than_requests(mocked_workspace):
    uri = urlsplit(deploy(mocked_workspace).scoring_uri)
    connection = http.client.HTTPConnection(uri.hostname, uri.port, timeout=10)
    for key, status in ((KEY, 200), (WRONG, 401)):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": OCTETS}
        connection.request("POST", uri.path, IDX, headers)
        answer = connection.getresponse()
        assert (answer.status, len(json.loads(answer.read()))) == (status, 3 if key == KEY else 1)
    connection.close()
    assert [request.format for request in mocked_workspace.cloud.requests] == ["idx", "idx"]
