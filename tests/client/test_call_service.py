"""Labels, formats and batches of `call_service` and `post_images`.

With Microsoft's inference server, and with a scripted server that records what it receives.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import tracemalloc

import numpy as np
import pytest
from listening_process import find_listening_process
from scripted_server import ScriptedServer, mock_service, zeros_for_idx, zeros_for_json
from tqdm import tqdm

from mnist_deploy import call_service, client, post_images
from mnist_deploy.client import encoding
from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import InputRejected, ScoringError, ScriptFailed

pytest_plugins = ["scoring_server"]

PIXELS = np.arange(3 * 784, dtype=np.uint32).reshape(3, 784).astype(np.uint8)
NO_SERVER = "http://127.0.0.1:9/score"


# --- labels of all types of inputs ---------------------------------------------------------------


UINT8 = {
    "uint8 (n, 784)",
    "uint8 (n, 28, 28)",
    "every second row of an array",
    "generator of single images",
    "generator of uneven pieces",
    "generator of mixed types",
}


def build_inputs(pixels: np.ndarray) -> dict[str, object]:
    flat = pixels.reshape(len(pixels), -1)
    return {
        "float64 (n, 784)": flat / 255.0,
        "float64 (n, 28, 28)": pixels / 255.0,
        "float32": (flat / 255.0).astype(np.float32),
        "uint8 (n, 784)": flat,
        "uint8 (n, 28, 28)": pixels,
        "column-major": np.asfortranarray(flat / 255.0),
        "every second row of an array": np.repeat(flat, 2, axis=0)[::2],
        "list": (flat / 255.0).tolist(),
        "tuple of images": tuple(flat / 255.0),
        "generator of single images": (row for row in flat),
        "generator of uneven pieces": iter(np.split(pixels, [1, 1, 40, 41, 170])),
        "generator of mixed types": (p if len(p) % 2 else p / 255.0 for p in np.split(flat, [7])),
    }


@pytest.mark.parametrize("batch_size", [None, 64])
def test_labels_are_those_of_predict(batch_size, digits, scoring_uri):
    pixels, labels = digits[0][:300], digits[1][:300]
    for name, images in build_inputs(pixels).items():
        predicted = post_images(scoring_uri, images, batch_size=batch_size)
        assert (name, predicted.tolist()) == (name, labels.tolist())
        assert predicted.dtype == np.int64


@pytest.mark.parametrize("batch_size", [None, 64])
def test_labels_of_a_json_script_are_those_of_predict(batch_size, digits, json_only_uri):
    pixels, labels = digits[0][:300], digits[1][:300]
    for name, images in build_inputs(pixels).items():
        if name in UINT8:
            with pytest.raises(ScoringError, match=r"Pass images / 255\.0 for pixels"):
                post_images(json_only_uri, images, batch_size=batch_size)
        else:
            predicted = post_images(json_only_uri, images, batch_size=batch_size)
            assert (name, predicted.tolist()) == (name, labels.tolist())


def test_intensities_are_sent_without_rounding(scoring_uri, json_only_uri, digits_model):
    model, X = digits_model
    X = np.sqrt(X)
    assert np.array_equal(post_images(scoring_uri, X), model.predict(X))
    assert np.array_equal(post_images(json_only_uri, X), model.predict(X))


def test_single_image_may_have_the_shape_of_its_features(scoring_uri, digits):
    image = digits[0][0].reshape(784)
    for images in (image, image[np.newaxis] / 255.0):
        assert post_images(scoring_uri, images).tolist() == [digits[1][0]]


@pytest.mark.parametrize("images", [[], np.empty((0, 784)), np.empty((0, 28, 28), "u1"), iter([])])
def test_empty_images_give_no_labels_and_no_request(images):
    labels = post_images(NO_SERVER, images)
    assert (labels.shape, labels.dtype) == ((0,), np.int64)


# --- IDX and JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "sent"),
    [
        (PIXELS, PIXELS),
        (PIXELS / 255.0, PIXELS),
        (np.eye(3, dtype=bool), np.eye(3, dtype=np.uint8) * 255),
        (np.eye(3, dtype=int), np.eye(3, dtype=np.uint8) * 255),
        (np.eye(3, dtype=np.float32), np.eye(3, dtype=np.uint8) * 255),
        (np.full((2, 3), 0.1), np.full((2, 3), 0.1)),
        ((PIXELS / 255.0).astype(np.float32), (PIXELS / 255.0).astype(np.float32)),
        (np.nextafter(PIXELS / 255.0, 0), np.nextafter(PIXELS / 255.0, 0)),
        (np.full((2, 3), 0.5, np.float16), np.full((2, 3), 0.5)),
    ],
)
def test_images_are_sent_as_the_smallest_idx_without_rounding(images, sent):
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, images)
    (body,) = server.bodies
    received = decode_idx(body)
    assert received.dtype == sent.dtype
    assert received.tobytes() == sent.tobytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("table", [np.array([[13.2, 1.78, -2.14]]), [[0, 128, 255]], [[1e308]]])
def test_numbers_outside_of_0_to_1_are_sent_as_json(table):
    with ScriptedServer(zeros_for_json) as server:
        post_images(server.uri, table)
    (body,) = server.bodies
    assert json.loads(body)["data"] == np.asarray(table).tolist()


@pytest.mark.parametrize("images", [PIXELS / 255.0, np.full((3, 4), 0.1), PIXELS[:, None] / 255.0])
def test_json_script_receives_idx_once_for_each_service(images):
    with ScriptedServer(zeros_for_json) as server:
        service = mock_service(server.uri, auth_enabled=False)
        for _ in range(2):
            assert call_service(service, images, batch_size=1).tolist() == [0, 0, 0]
    rejected, *accepted = server.bodies
    assert rejected[:2] == b"\0\0"
    rows = images.reshape(3, -1).tolist()
    assert [json.loads(body)["data"] for body in accepted] == [[row] for row in rows] * 2


def test_json_script_receives_idx_once_for_each_uri_and_deployment():
    with ScriptedServer(zeros_for_json) as server:
        for deployment in (None, None, "blue", "blue"):
            headers = {"azureml-model-deployment": deployment} if deployment else None
            post_images(server.uri, PIXELS / 255.0, headers=headers)
    assert [body[:1] for body in server.bodies] == [b"\0", b"{", b"{"] * 2


def test_new_service_object_at_the_same_address_is_sent_idx_again():
    """``overwrite=True`` keeps the address, and the new script may take IDX."""
    with ScriptedServer(zeros_for_json) as server:
        for _ in range(2):
            call_service(mock_service(server.uri, auth_enabled=False), PIXELS / 255.0)
    assert [body[:1] for body in server.bodies] == [b"\0", b"{"] * 2


def test_uint8_is_sent_as_idx_even_if_the_script_rejected_it_before():
    """JSON cannot hold uint8, and the script at that address may be another one by now."""
    answers = [zeros_for_json, zeros_for_json, zeros_for_idx, zeros_for_idx]
    with ScriptedServer(lambda *request: answers.pop(0)(*request)) as server:
        post_images(server.uri, PIXELS / 255.0)
        assert post_images(server.uri, PIXELS, batch_size=2).tolist() == [0, 0, 0]
    assert [body[:1] for body in server.bodies] == [b"\0", b"{", b"\0", b"\0"]


def test_format_is_the_callers_choice():
    with ScriptedServer(zeros_for_json) as server:
        for _ in range(2):
            post_images(server.uri, PIXELS / 255.0, format="json")
        assert [body[:1] for body in server.bodies] == [b"{", b"{"]
        with pytest.raises(InputRejected, match="UTF-8"):
            post_images(server.uri, PIXELS / 255.0, format="idx")
        assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("images", "format", "message"),
    [
        ([[2.0]], "idx", r"expected uint8 pixels or intensities in \[0, 1\]"),
        (PIXELS, "csv", "format is 'csv', expected one of auto, idx, json, records, split"),
    ],
)
def test_format_that_cannot_hold_the_images_is_rejected(images, format, message):
    with pytest.raises(ValueError, match=message):
        post_images(NO_SERVER, images, format=format)


@pytest.mark.parametrize("images", [PIXELS, PIXELS.reshape(3, 28, 28)])
def test_uint8_is_never_divided_by_255_for_a_json_script(images):
    """A wine's magnesium of 127 is no pixel: the labels would be wrong, without an error."""
    advice = r"images / 255\.0 for pixels, images\.astype\(int\)"
    with ScriptedServer(zeros_for_json) as server:
        with pytest.raises(InputRejected, match=rf"UTF-8.* not sent again as JSON: .*{advice}"):
            post_images(server.uri, images)
        with pytest.raises(ValueError, match=advice):
            post_images(server.uri, images, format="json")
        post_images(server.uri, images.astype(int), format="json")
    assert json.loads(server.bodies[-1])["data"] == PIXELS.tolist()


def test_script_that_returns_its_errors_with_200_gets_json():
    def respond(_handler, body):
        return 200, [4] if body[:1] == b"{" else {"error": "codec can't decode byte"}

    with ScriptedServer(respond) as server:
        assert post_images(server.uri, PIXELS[:1] / 255.0).tolist() == [4]


def test_failure_after_the_first_batch_is_not_answered_with_json():
    def respond(_handler, body):
        is_first = len(server.bodies) == 1
        return zeros_for_idx(_handler, body) if is_first else (500, {"message": "x"})

    with ScriptedServer(respond) as server, pytest.raises(ScriptFailed):
        post_images(server.uri, PIXELS, batch_size=1)
    assert len(server.bodies) == 2


# --- batches -------------------------------------------------------------------------------------


def test_batches_share_one_connection():
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, np.zeros((1000, 5)), batch_size=100)
    assert (len(server.bodies), server.connections) == (10, 1)


@pytest.mark.parametrize("format", ["auto", "json"])
@pytest.mark.parametrize("as_iterator", [False, True])
def test_body_stays_below_the_documented_maximum(format, as_iterator):
    """ "Troubleshoot online endpoints": 413 for a request payload above 1.5 megabytes."""
    images = np.random.default_rng(1).random((2000, 784))
    respond = zeros_for_json if format == "json" else zeros_for_idx
    with ScriptedServer(respond) as server:
        labels = post_images(server.uri, iter(images) if as_iterator else images, format=format)
    assert len(labels) == 2000
    sizes = [len(body) for body in server.bodies]
    assert max(sizes) < 1_500_000
    assert sum(sizes) / len(sizes) > 900_000


def test_fallback_to_json_stays_below_the_documented_maximum():
    images = np.random.default_rng(1).integers(0, 256, (2000, 784)) / 255.0
    with ScriptedServer(zeros_for_json) as server:
        assert len(post_images(server.uri, images)) == 2000
    assert max(map(len, server.bodies)) < 1_500_000
    assert {body[:1] for body in server.bodies[1:]} == {b"{"}
    rows = [row for body in server.bodies[1:] for row in json.loads(body)["data"]]
    assert rows == images.tolist()


def test_row_above_the_documented_maximum_is_sent_alone():
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, np.zeros((3, 3_000_000), np.uint8))
        post_images(server.uri, (np.zeros(784, np.uint8) for _ in range(6000)))
    counts = [decode_idx(body).shape[0] for body in server.bodies]
    assert counts == [1, 1, 1, 1911, 1911, 1911, 267]


def test_batch_size_of_the_caller_is_kept():
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, np.full((1000, 784), 0.1), batch_size=600)
    assert [decode_idx(body).shape[0] for body in server.bodies] == [600, 400]
    with pytest.raises(ValueError, match="batch_size is 0, expected 1 or more"):
        post_images(NO_SERVER, PIXELS, batch_size=0)


def test_memory_does_not_grow_with_the_number_of_images(scoring_uri, digits):
    def measure_peak(pieces: int) -> int:
        tracemalloc.start()
        labels = post_images(scoring_uri, (digits[0] for _ in range(pieces)))
        assert len(labels) == 1000 * pieces
        labels_twice = 2 * labels.nbytes  # the parts, and the array that joins them
        peak = tracemalloc.get_traced_memory()[1] - labels_twice
        tracemalloc.stop()
        return peak

    assert measure_peak(100) < 1.3 * measure_peak(10)
    worker = find_listening_process(scoring_uri)
    before = worker.memory_info().rss
    measure_peak(100)
    assert worker.memory_info().rss < 1.1 * before


def test_long_call_shows_a_progress_bar(monkeypatch, capsys):
    immediate = {"delay": 0, "mininterval": 0}
    monkeypatch.setattr(client, "tqdm", lambda **settings: tqdm(**settings | immediate))
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, np.zeros((10, 5)), batch_size=2)
        assert "scoring" not in capsys.readouterr().err
        post_images(server.uri, np.zeros((2000, 5)), batch_size=500)
        assert "2000/2000" in capsys.readouterr().err


def test_short_call_shows_no_progress_bar(capsys):
    """Nor does a short one whose number of rows is unknown at the beginning."""
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, iter(np.zeros((2000, 1, 5))))
    assert capsys.readouterr() == ("", "")


def test_next_batch_is_encoded_while_the_present_one_is_scored(monkeypatch):
    """The server responds to no batch before the next one is encoded."""
    done, encoded, genuine = [], threading.Condition(), encoding.idx_body

    def encode(*arguments):
        with encoded:
            done.append(threading.current_thread())
            encoded.notify_all()
        return genuine(*arguments)

    def respond(handler, body):
        with encoded:
            assert encoded.wait_for(lambda: len(done) > min(len(server.bodies), 4), timeout=20)
        return zeros_for_idx(handler, body)

    monkeypatch.setattr(encoding, "idx_body", encode)
    with ScriptedServer(respond) as server:
        assert len(post_images(server.uri, np.zeros((5, 4)), batch_size=1)) == 5
    assert len(set(done[1:])) == 1
    assert not done[-1].is_alive()


def test_iterable_is_read_in_the_thread_of_the_caller():
    def read_pieces():
        for _ in range(5):
            assert threading.current_thread() is threading.main_thread()
            yield PIXELS

    with ScriptedServer(zeros_for_idx) as server:
        assert len(post_images(server.uri, read_pieces(), batch_size=3)) == 15


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("the iterable", LookupError),
        ("an image", ValueError),
        ("the service", ScriptFailed),
        ("Ctrl-C", KeyboardInterrupt),
    ],
)
def test_call_that_fails_leaves_no_thread(failing, error, interruptible):
    def read_pieces():
        yield from [PIXELS / 255.0] * 3
        if failing == "the iterable":
            raise LookupError("no more images")
        yield np.full((3, 784), np.nan if failing == "an image" else 0.0)

    def respond(handler, body):
        if len(server.bodies) == 3 and failing == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        if len(server.bodies) == 3 and failing == "the service":
            return 500, {"message": "no"}
        return zeros_for_idx(handler, body)

    before = set(threading.enumerate())
    with ScriptedServer(respond) as server:
        with pytest.raises(error) as raised:
            post_images(server.uri, read_pieces(), batch_size=3)
        left = [each.name for each in set(threading.enumerate()) - before]
    assert not any("encoder" in name for name in left)
    assert raised.tb  # the traceback keeps the frames and their objects alive until here
