"""Thousands of generated requests to score.py in Microsoft's inference server.

Each kind of invalid input has a generator. A test asserts that the response is a 4xx with a JSON
message, never a 500, or, if the input is valid, the labels of model.predict; and that the next
valid request is scored.
"""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_deploy.data.idx import encode_idx

pytest_plugins = ["scoring_server"]

FEATURES = 784
WRONG_SIZES = st.integers(0, 1000).filter(lambda n: n != FEATURES)
INTENSITIES = st.sampled_from([0, 1, 0.0, 0.5, 1.0, 0.25])
NO_NUMBERS = st.sampled_from(["0.5", "", "NaN", None, True, False, [0.5], [], {}, {"a": 1}])
TOO_FAR = st.one_of(
    st.floats(1.0, exclude_min=True, allow_infinity=False),
    st.floats(max_value=0.0, exclude_max=True, allow_infinity=False),
    st.integers(2, 255),
    st.integers(-(10**30), -1),
)


@pytest.fixture(scope="module")
def service(scoring_uri, digits_model):
    """A function that sends a request, checks the response, and scores a valid request after it."""
    model, X = digits_model
    good_body, good_labels = encode_idx(X[:1]), model.predict(X[:1]).tolist()
    with requests.Session() as session:
        session.trust_env = False  # not to look for proxies at each of the requests

        def send(body: bytes, headers=None) -> requests.Response:
            answer = session.post(scoring_uri, data=body, headers=headers, timeout=30)
            if answer.status_code != 200:
                assert 400 <= answer.status_code < 500, (body[:200], answer.text)
                assert answer.headers["Content-Type"] == "application/json"
                assert len(answer.json()["message"]) > 20
            after = session.post(scoring_uri, data=good_body, timeout=30)
            assert after.json() == good_labels
            return answer

        yield send


def assert_rejected(answer: requests.Response, *words: str, status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    message = answer.json()["message"]
    assert all(word in message for word in words), message


def cases(n: int):
    """Settings of hypothesis for ``n`` cases, without deadline and database."""
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


def build_row(**at) -> list:
    row: list = [0.0] * FEATURES
    for place, value in at.items():
        row[int(place[1:])] = value
    return row


@st.composite
def rows_with(draw, values) -> dict:
    """The tutorial's JSON of up to four images, one number of which is drawn from ``values``."""
    data = [build_row() for _ in range(draw(st.integers(1, 4)))]
    row = draw(st.integers(0, len(data) - 1))
    data[row][draw(st.integers(0, FEATURES - 1))] = draw(values)
    return {"data": data, "row": row}


@cases(75)
@given(st.binary(max_size=300))
def test_random_bytes_get_a_4xx_or_labels(service, body):
    service(body)


@cases(75)
@given(st.text(max_size=200))
def test_random_text_is_rejected(service, text):
    assert_rejected(service(text.encode()), "expected")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@cases(100)
@given(JSON)
def test_random_json_is_rejected(service, value):
    assert_rejected(service(json.dumps(value).encode()), "expected")


@cases(100)
@given(JSON.filter(lambda value: value != []))
def test_random_json_as_data_is_rejected(service, value):
    assert_rejected(service(json.dumps({"data": value}).encode()), "expected")


@cases(50)
@given(st.lists(WRONG_SIZES, min_size=1, max_size=3), st.integers(0, 3), INTENSITIES)
def test_rows_of_another_length_are_rejected(service, sizes, at, number):
    data = [[number] * size for size in sizes]
    data.insert(min(at, len(data)), build_row())
    assert_rejected(service(json.dumps({"data": data}).encode()), "numbers; expected 784")


@cases(75)
@given(rows_with(NO_NUMBERS))
def test_values_other_than_numbers_are_rejected(service, request_):
    answer = service(json.dumps(request_).encode())
    assert_rejected(
        answer, f"image {request_['row']} ", "Expected `float`", "expected", "784 numbers"
    )


@cases(50)
@given(rows_with(st.sampled_from([float("nan"), float("inf"), float("-inf")])))
def test_nan_and_infinity_are_rejected(service, request_):
    assert_rejected(service(json.dumps(request_).encode()), "NaN and Infinity are not JSON")


@cases(100)
@given(rows_with(TOO_FAR))
def test_numbers_out_of_range_are_rejected(service, request_):
    answer = service(json.dumps(request_).encode())
    assert_rejected(answer, f"image {request_['row']} ", "[0, 1]")


@cases(40)
@given(rows_with(st.integers(2, 255)))
def test_pixels_as_json_are_rejected_with_advice(service, request_):
    answer = service(json.dumps(request_).encode())
    assert_rejected(answer, "looks like 0-255", "divide by 255", "uint8 IDX")


@cases(40)
@given(st.integers(1, 100_000), st.sampled_from([b"[", b'{"data":', b'{"data":[', b'[{"a":']))
def test_deeply_nested_json_is_rejected(service, depth, opening):
    assert_rejected(service(b'{"data": [' + opening * depth), "expected")
    assert_rejected(service(opening * depth), "expected")


@cases(50)
@given(st.binary(min_size=0, max_size=2).filter(lambda tail: tail[:1] not in (b"\x02", b"\x03")))
def test_idx_that_holds_no_images_is_rejected(service, tail):
    body = b"\0\0" + tail + encode_idx(np.zeros((2, 28, 28), np.uint8))[4:]
    assert_rejected(service(body), "expected images")


@cases(50)
@given(st.integers(0, 255).filter(lambda code: code not in (8, 13, 14)), st.integers(2, 3))
def test_idx_of_another_type_is_rejected(service, code, ndim):
    body = bytes([0, 0, code, ndim]) + struct.pack(f">{ndim}I", 1, *[28, 28][: ndim - 1])
    assert_rejected(service(body + bytes(FEATURES)), f"0x{code:02x}", "0x08 (uint8)")


@cases(75)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=3), st.sampled_from([8, 13, 14]))
def test_idx_of_another_image_size_is_rejected(service, shape, code):
    body = bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    assert_rejected(service(body + bytes(FEATURES)), "the model takes 784")


@cases(50)
@given(st.integers(2, 2**32 - 1), st.sampled_from([(28, 28), (784,), (1, 784)]))
def test_idx_with_fewer_images_than_stated_is_rejected(service, count, shape):
    body = bytes([0, 0, 8, 1 + len(shape)]) + struct.pack(f">{1 + len(shape)}I", count, *shape)
    answer = service(body + bytes(FEATURES))
    if count * FEATURES > 2**27:
        assert_rejected(answer, f"{count} images", "unpack to more", status=413)
    else:
        assert_rejected(answer, f"{count} of its header", "fewer images")


@st.composite
def idx_files(draw) -> bytes:
    dtype = draw(st.sampled_from(["u1", "f4", "f8"]))
    shape = draw(st.sampled_from([(3, 28, 28), (1, 784), (2, 784)]))
    return encode_idx(np.zeros(shape, dtype))


@cases(75)
@given(idx_files(), st.data())
def test_truncated_idx_is_rejected(service, body, data):
    cut = body[: data.draw(st.integers(1, len(body) - 1))]
    assert_rejected(service(cut), "expected" if len(cut) < 4 else "IDX file")
    assert_rejected(service(gzip.compress(cut)), "expected" if len(cut) < 4 else "IDX file")


@cases(50)
@given(idx_files(), st.binary(min_size=1, max_size=2000))
def test_idx_with_more_bytes_is_rejected(service, body, more):
    assert_rejected(service(body + more), "more bytes than")
    assert_rejected(service(gzip.compress(body + more)), "more bytes than")


@cases(50)
@given(
    st.sampled_from(["f4", "f8"]),
    st.integers(0, 3 * FEATURES - 1),
    st.one_of(st.floats(1.5, width=32), st.floats(max_value=-0.5, width=32), st.just(float("nan"))),
)
def test_idx_with_numbers_out_of_range_is_rejected(service, dtype, place, number):
    images = np.zeros(3 * FEATURES, dtype)
    images[place] = number
    answer = service(encode_idx(images.reshape(3, 28, 28)))
    assert_rejected(answer, f"image {place // FEATURES} ", "[0, 1]")


@cases(50)
@given(idx_files(), st.data())
def test_truncated_gzip_is_rejected(service, body, data):
    packed = gzip.compress(body)
    cut = packed[: data.draw(st.integers(2, len(packed) - 1))]
    assert_rejected(service(cut), "gzip data is damaged or truncated")


@cases(150)
@given(st.data())
def test_changed_bytes_give_a_4xx_or_labels(service, digits, digits_model, data):
    """Bytes are replaced, removed or inserted; labels are those of the changed images."""
    images = digits[0][:2].reshape(2, -1)
    valid = {
        "idx": encode_idx(images),
        "json": json.dumps({"data": (images / 255.0).tolist()}).encode(),
        "gzip": gzip.compress(encode_idx(images)),
    }
    kind = data.draw(st.sampled_from(list(valid)))
    body = bytearray(valid[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 30), st.integers(0, len(body))))
        piece = data.draw(st.binary(max_size=3))
        body[at : at + data.draw(st.integers(0, 3))] = piece
    answer = service(bytes(body))
    if answer.status_code == 200:
        expected = predict_like_the_tutorial(digits_model[0], bytes(body))
        assert answer.json() == expected


def predict_like_the_tutorial(model, body: bytes) -> list[int]:
    """The labels of a valid body, which is read with other code than that of score.py."""
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    if body[:2] == b"\0\0":
        count, width = struct.unpack(">I", body[4:8])[0], FEATURES
        start = 4 + 4 * body[3]
        numbers = np.frombuffer(body[start:], {8: "u1", 13: ">f4", 14: ">f8"}[body[2]])
        X = numbers.reshape(count, width) / (255.0 if body[2] == 8 else 1.0)
    else:
        X = np.array(json.loads(body)["data"]).reshape(-1, FEATURES)
    return model.predict(X).tolist() if len(X) else []


@cases(50)
@given(
    st.sampled_from(["u1", "f4", "f8", "json"]),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_valid_images_get_the_labels_of_predict(service, digits_model, form, count, seed, packed):
    rng = np.random.default_rng(seed)
    if form == "json":
        X = rng.random((count, FEATURES))
        body = json.dumps({"data": X.tolist()}).encode()
    elif form == "u1":
        pixels = rng.integers(0, 256, (count, FEATURES), dtype=np.uint8)
        X, body = pixels / 255.0, encode_idx(pixels)
    else:
        X = rng.random((count, FEATURES)).astype(form)
        body = encode_idx(X)
    answer = service(gzip.compress(body, 1) if packed else body)
    assert answer.json() == digits_model[0].predict(X.astype(np.float64)).tolist()


def test_empty_body_is_rejected(service):
    assert_rejected(service(b""), "empty", "expected")
    assert_rejected(service(gzip.compress(b"")), "expected")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity", "nonsense"])
def test_wrong_content_encoding_is_rejected(service, encoding):
    assert_rejected(service(b"\x1b\0\xf8nonsense", {"Content-Encoding": encoding}), "expected")


@pytest.mark.parametrize("name", ["X-Anything", "Content-Type", "Authorization", "Cookie"])
def test_unusual_headers_are_ignored(service, digits, name):
    for value in ("", "\u00e9" * 50, "a" * 4000, "=;,\"'"):
        body = encode_idx(digits[0][:1])
        assert service(body, {name: value.encode("latin-1")}).json() == [digits[1][0]]
