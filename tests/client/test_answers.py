"""What a scoring script returned becomes an array, or an error that names what was expected."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_server import ScriptedServer, respond_always

from mnist_deploy import post_images
from mnist_deploy.errors import ScoringError

ROWS = np.zeros((3, 4))


def post(content, **options):
    with ScriptedServer(respond_always(200, content)) as server:
        return post_images(server.uri, ROWS, **options)


@pytest.mark.parametrize(
    ("returned", "dtype"),
    [
        ([7, 2, 1], "int64"),
        ([7.5, 2, 1], "float64"),
        (["seven", "two", "one"], "<U5"),
        ([True, False, True], "bool"),
        ([1, "two", None], "object"),
        ([{"label": 7}, {"label": 2}, {"label": 1}], "object"),
        ([None] * 3, "object"),
        ([[0.1, 0.9], [0.5, 0.5], [1, 0]], "float64"),
        ([[1], [2], [3]], "int64"),
        ([["a", "b"]] * 3, "<U1"),
    ],
)
def test_labels_numbers_and_rows_become_an_array(returned, dtype):
    labels = post(returned)
    assert labels.tolist() == returned
    assert labels.dtype == dtype


def test_json_string_of_a_list_is_read():
    """The 2019 edition's script returns ``json.dumps(...)``."""
    assert post('["seven", "two", "one"]').tolist() == ["seven", "two", "one"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (b"Healthy", "'Healthy'; expected a JSON list"),
        ({"labels": [1, 2, 3]}, "expected a JSON list"),
        ([1, 2], "2 items for 3 rows"),
        ([[1, 2], [3, 4], [5]], "rows of one length"),
        ([[1, 2], [3, 4], 5], "rows of one length"),
        ([[[1]], [[2]], [[3]]], "rows of one length"),
    ],
)
def test_other_answers_are_rejected_with_advice(returned, message):
    with pytest.raises(ScoringError, match=rf"{message}.*service\.run") as caught:
        post(returned)
    assert caught.value.status is None


def test_types_that_differ_between_requests_are_kept():
    answers = iter([[1], ["two"], [3]])
    with ScriptedServer(lambda *_: (200, next(answers))) as server:
        assert post_images(server.uri, ROWS, batch_size=1).tolist() == [1, "two", 3]
    answers = iter([[1], [2.5], [3]])
    with ScriptedServer(lambda *_: (200, next(answers))) as server:
        assert post_images(server.uri, ROWS, batch_size=1).dtype == np.float64


def test_rows_that_differ_between_requests_are_rejected():
    answers = iter([[[1, 2]], [[1, 2, 3]], [[1, 2]]])
    server = ScriptedServer(lambda *_: (200, next(answers)))
    with server, pytest.raises(ScoringError, match="another shape"):
        post_images(server.uri, ROWS, batch_size=1)
