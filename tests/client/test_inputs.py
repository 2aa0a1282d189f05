"""Inputs other than images: tables with column names, text, booleans; and what is rejected."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scripted_server import ScriptedServer, respond_always

from mnist_deploy import post_images

FRAME = pd.DataFrame(
    {"age": [31, 45, 28], "fare": [7.25, 0.1, 8.05], "sex": ["f", "m", "f"], "alone": [True] * 3},
    index=["x", "y", "z"],
)


def send(inputs, **options) -> list:
    """The bodies that `post_images` sends for inputs, decoded."""

    def respond(_handler, body):
        content = json.loads(body)
        return 200, [0] * len(content.get("data") or content["input_data"]["data"])

    with ScriptedServer(respond) as server:
        post_images(server.uri, inputs, **options)
    return [json.loads(body) for body in server.bodies]


# --- DataFrames ----------------------------------------------------------------------------------


def test_dataframe_is_sent_as_records():
    assert send(FRAME, format="records") == [
        {
            "data": [
                {"age": 31, "fare": 7.25, "sex": "f", "alone": True},
                {"age": 45, "fare": 0.1, "sex": "m", "alone": True},
                {"age": 28, "fare": 8.05, "sex": "f", "alone": True},
            ]
        }
    ]


def test_dataframe_is_sent_as_split_in_batches():
    """The form of Azure's MLflow deployments ("Deploy MLflow models to online endpoints")."""
    columns = ["age", "fare", "sex", "alone"]
    rows = [[31, 7.25, "f", True], [45, 0.1, "m", True], [28, 8.05, "f", True]]
    assert send(FRAME, format="split", batch_size=2) == [
        {"input_data": {"columns": columns, "index": ["x", "y"], "data": rows[:2]}},
        {"input_data": {"columns": columns, "index": ["z"], "data": rows[2:]}},
    ]


def test_pieces_of_an_iterable_may_be_dataframes():
    sent = send((FRAME[i : i + 1] for i in range(3)), format="split")
    assert [body["input_data"]["index"] for body in sent] == [["x", "y", "z"]]


@pytest.mark.parametrize("format", ["auto", "json", "idx"])
def test_dataframe_without_its_format_is_rejected(format):
    with pytest.raises(TypeError, match=r"DataFrame\. Pass format='records'.*format='split'"):
        post_images("http://127.0.0.1:9/score", FRAME, format=format)


@pytest.mark.parametrize("format", ["records", "split"])
def test_missing_values_of_a_dataframe_need_allow_nan(format):
    frame = FRAME.assign(fare=[7.25, np.nan, 8.05])
    with pytest.raises(ValueError, match=r"row 1, column 'fare' has no value \(NaN\)"):
        post_images("http://127.0.0.1:9/score", frame, format=format)
    (body,) = send(frame, format=format, allow_nan=True)
    data = body["data"] if format == "records" else body["input_data"]["data"]
    assert (data[1]["fare"] if format == "records" else data[1][1]) is None


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (FRAME.assign(fare=np.inf), ValueError, "row 0, column 'fare' has infinity"),
        (FRAME.to_numpy()[:, :2], TypeError, "hold object"),
        (np.zeros((2, 2)), TypeError, "format='records' takes a pandas DataFrame, not ndarray"),
        (pd.DataFrame(np.zeros((2, 2))), ValueError, r"column names are \[0, 1\]"),
        (FRAME.assign(day=pd.Timestamp("2026-01-01")), TypeError, "cannot be sent as JSON"),
    ],
)
def test_invalid_records_are_rejected_before_a_request(frame, error, message):
    with pytest.raises(error, match=message):
        post_images("http://127.0.0.1:9/score", frame, format="records", allow_nan=True)


# --- text, booleans, integers, NaN ---------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [["good", "bad"], np.array(["good", "bad"]), pd.Series(["good", "bad"]), iter(["good", "bad"])],
    ids=["list", "array", "Series", "iterator"],
)
def test_texts_are_sent_as_json(texts):
    assert send(texts, format="json") == [{"data": ["good", "bad"]}]


def test_rows_of_text_are_sent_as_json():
    assert send([["a", "b"], ["c", "d"]], format="json") == [{"data": [["a", "b"], ["c", "d"]]}]


@pytest.mark.parametrize("format", ["auto", "idx"])
def test_texts_without_json_are_rejected(format):
    with pytest.raises(TypeError, match=r"inputs are text.*Pass format='json'"):
        post_images("http://127.0.0.1:9/score", ["good", "bad"], format=format)


@pytest.mark.parametrize("values", [[[True, False]], [[1, 2]], [[0.1, 2.5]], [[2**40, -3]]])
def test_booleans_and_numbers_keep_their_json_type(values):
    (body,) = send(values, format="json")
    assert json.dumps(body) == json.dumps({"data": values})


def test_nan_is_sent_as_null_with_allow_nan():
    for format in ("json", "auto"):
        assert send([[0.1, np.nan]], format=format, allow_nan=True) == [{"data": [[0.1, None]]}]
    with pytest.raises(ValueError, match="JSON cannot represent infinity"):
        send([[0.1, np.inf]], format="json", allow_nan=True)


def test_large_json_stays_below_the_documented_maximum():
    """ "Troubleshoot online endpoints": 413 for payloads above 1.5 megabytes."""
    texts = ["x" * 400_000] * 7
    sizes = [len(json.dumps(body)) for body in send(texts, format="json")]
    assert sum(sizes) > 2_800_000
    assert max(sizes) < 1_500_000


# --- what is rejected ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.array([[0.1, np.nan]]), ValueError, "row 0 holds NaN"),
        ((row for row in [[0.5], [0.5], [np.inf]]), ValueError, "row 2 holds NaN or infinity"),
        (np.float64(3), ValueError, r"shape \(\)"),
        (np.zeros((2, 3, 4, 5)), ValueError, r"shape \(2, 3, 4, 5\)"),
        ([[1.0, 2.0], [3.0]], ValueError, "differ in length"),
        (np.ma.masked_array([[1.0, 2.0]], mask=[[0, 1]]), TypeError, r"inputs\.filled"),
        (scipy.sparse.eye(3), TypeError, r"sparse matrix\. Pass inputs\.toarray\(\).*service\.run"),
        (np.zeros((2, 2), complex), TypeError, r"hold complex128.*service\.run"),
        (np.array([["2026-01-01"]], "M8[D]"), TypeError, r"hold datetime64.*service\.run"),
        (np.array([[1, "a"]], dtype=object), TypeError, r"Pass a DataFrame.*service\.run"),
        ([[1, "a"]], TypeError, r"mix text with other types.*service\.run"),
        ([["a", 1]], TypeError, r"Pass a DataFrame.*service\.run"),
        (None, TypeError, r"of type NoneType.*service\.run"),
        ("digits.png", TypeError, r"one str\. Pass a list.*service\.run"),
        (b"digits", TypeError, r"one bytes"),
        ({"data": [[1]]}, TypeError, r"of type dict.*service\.run"),
    ],
)
def test_inputs_that_no_format_holds_are_rejected_before_a_request(inputs, error, message):
    with ScriptedServer(respond_always(200, [])) as server, pytest.raises(error, match=message):
        post_images(server.uri, inputs)
    assert server.bodies == []
