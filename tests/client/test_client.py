"""The client against real services, and against a server that misbehaves on demand."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from unittest.mock import create_autospec
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil
import pytest
from azureml.core.webservice import AciWebservice, AksWebservice
from azureml.exceptions import WebserviceException
from tqdm import tqdm

from mnist_deploy import call_service, client, post_images
from mnist_deploy.data.idx import decode_idx
from mnist_deploy.errors import (
    AuthenticationFailed,
    InputRejected,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)

pytest_plugins = ["scoring_server"]

KEY = "k3y-that-nobody-may-see"
PIXELS = np.arange(3 * 784, dtype=np.uint32).reshape(3, 784).astype(np.uint8)


class Script:
    """A server whose answers are a test's: a function of the request's body and headers.

    It answers ``(status, body)``, or does something with the handler and answers None.
    """

    def __init__(self, answer, port=0):
        self.bodies: list[bytes] = []
        self.keys: list[str | None] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                super().setup()

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.bodies.append(body)
                outer.keys.append(self.headers["Authorization"])
                answered = answer(self, body)
                if answered is None:
                    self.close_connection = True
                    return
                status, content = answered
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}/score"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def zeros_for_idx(_handler, body):
    return 200, [0] * len(decode_idx(body))


def zeros_for_json(_handler, body):
    """As the tutorial's script: 400 for what is no UTF-8, an opaque 500 for what is no JSON."""
    try:
        return 200, [0] * len(json.loads(body.decode())["data"])
    except UnicodeDecodeError as error:
        return 400, {"message": f"Input cannot be decoded as UTF-8: {error}"}
    except Exception:
        return 500, {"message": "An unexpected error occurred in scoring script."}


def always(status, content):
    return lambda _handler, _body: (status, content)


# --- labels, whatever the images come as ---------------------------------------------------------


TABLES_OF_UINT8 = {
    "uint8 (n, 784)",
    "every other of twice as many",
    "generator of single images",
    "generator of mixed types",
}


def ways(pixels: np.ndarray) -> dict[str, object]:
    flat = pixels.reshape(len(pixels), -1)
    return {
        "float64 (n, 784)": flat / 255.0,
        "float64 (n, 28, 28)": pixels / 255.0,
        "float32": (flat / 255.0).astype(np.float32),
        "uint8 (n, 784)": flat,
        "uint8 (n, 28, 28)": pixels,
        "column-major": np.asfortranarray(flat / 255.0),
        "every other of twice as many": np.repeat(flat, 2, axis=0)[::2],
        "list": (flat / 255.0).tolist(),
        "DataFrame": pd.DataFrame(flat / 255.0),
        "tuple of images": tuple(flat / 255.0),
        "generator of single images": (row for row in flat),
        "generator of uneven pieces": iter(np.split(pixels, [1, 1, 40, 41, 170])),
        "generator of mixed types": (p if len(p) % 2 else p / 255.0 for p in np.split(flat, [7])),
    }


@pytest.mark.parametrize("service", ["scoring_uri", "json_only_uri"])
@pytest.mark.parametrize("batch_size", [None, 64])
def test_labels_are_those_of_predict(service, batch_size, digits, request):
    uri = request.getfixturevalue(service)
    pixels, labels = digits[0][:300], digits[1][:300]
    for way, images in ways(pixels).items():
        if service == "json_only_uri" and way in TABLES_OF_UINT8:
            with pytest.raises(ScoringError, match=r"Pass images / 255\.0 for pixels"):
                post_images(uri, images, batch_size=batch_size)
            continue
        predicted = post_images(uri, images, batch_size=batch_size)
        assert (way, predicted.tolist()) == (way, labels.tolist())
        assert predicted.dtype == np.int64


def test_intensities_between_the_pixels_keep_every_bit(scoring_uri, json_only_uri, digits_model):
    model, X = digits_model
    X = np.sqrt(X)
    assert np.array_equal(post_images(scoring_uri, X), model.predict(X))
    assert np.array_equal(post_images(json_only_uri, X), model.predict(X))


def test_one_image_needs_no_row_of_its_own(scoring_uri, digits):
    image = digits[0][0].reshape(784)
    for images in (image, image[np.newaxis] / 255.0):
        assert post_images(scoring_uri, images).tolist() == [digits[1][0]]
    with pytest.raises(ValueError, match=r"shape \(1, 28, 28, 1\)"):
        post_images(scoring_uri, image.reshape(1, 28, 28, 1))


@pytest.mark.parametrize("images", [[], np.empty((0, 784)), np.empty((0, 28, 28), "u1"), iter([])])
def test_no_images_need_no_request(images):
    labels = post_images("http://127.0.0.1:9/score", images)
    assert (labels.shape, labels.dtype) == ((0,), np.int64)


def test_classes_with_names_and_an_answer_encoded_twice():
    with Script(always(200, json.dumps(["seven", "two", "one"]))) as script:
        assert post_images(script.uri, PIXELS).tolist() == ["seven", "two", "one"]


# --- the form in which images travel -------------------------------------------------------------


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
def test_images_travel_in_the_smallest_form_that_keeps_every_bit(images, sent):
    with Script(zeros_for_idx) as script:
        post_images(script.uri, images)
    (body,) = script.bodies
    arrived = decode_idx(body)
    assert arrived.dtype == sent.dtype
    assert arrived.tobytes() == sent.tobytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("table", [np.array([[13.2, 1.78, -2.14]]), [[0, 128, 255]], [[1e308]]])
def test_numbers_that_are_no_intensities_travel_as_json_at_once(table):
    with Script(zeros_for_json) as script:
        post_images(script.uri, table)
    (body,) = script.bodies
    assert json.loads(body)["data"] == np.asarray(table).tolist()


@pytest.mark.parametrize(
    "images", [PIXELS.reshape(3, 28, 28), PIXELS / 255.0, np.full((3, 4), 0.1)]
)
def test_a_service_that_knows_no_idx_is_asked_once_and_remembered(images):
    with Script(zeros_for_json) as script:
        service = fake_service(script.uri, auth_enabled=False)
        for _ in range(2):
            assert call_service(service, images, batch_size=1).tolist() == [0, 0, 0]
    refused, *taken = script.bodies
    assert refused[:2] == b"\0\0"
    sent = images / 255.0 if images.dtype == np.uint8 else images
    rows = sent.reshape(3, -1).tolist()
    assert [json.loads(body)["data"] for body in taken] == [[row] for row in rows] * 2


def test_what_was_learnt_is_of_a_service_and_not_of_its_address():
    """Which an overwritten service keeps, with a script that may know IDX now."""
    with Script(zeros_for_json) as script:
        call_service(fake_service(script.uri, auth_enabled=False), PIXELS / 255.0)
        call_service(fake_service(script.uri, auth_enabled=False), PIXELS / 255.0)
    assert [body[:1] for body in script.bodies] == [b"\0", b"{"] * 2


def test_the_format_can_be_said():
    with Script(zeros_for_json) as script:
        for _ in range(2):
            post_images(script.uri, PIXELS / 255.0, format="json")
        assert [body[:1] for body in script.bodies] == [b"{", b"{"]
        with pytest.raises(InputRejected, match="UTF-8"):
            post_images(script.uri, PIXELS / 255.0, format="idx")
        assert len(script.bodies) == 3
        with pytest.raises(ValueError, match=r"takes uint8 pixels or intensities in \[0, 1\]"):
            post_images(script.uri, [[2.0]], format="idx")
        with pytest.raises(ValueError, match="format is 'csv', expected 'auto', 'idx' or 'json'"):
            post_images(script.uri, PIXELS, format="csv")
        assert len(script.bodies) == 3


def test_a_table_of_uint8_is_not_divided_for_a_script_that_knows_only_json():
    """A wine's magnesium of 127 is no pixel: wrong labels would be the answer, and no error."""
    with Script(zeros_for_json) as script:
        advice = r"images / 255\.0 for pixels, images\.astype\(float\)"
        with pytest.raises(InputRejected, match=rf"UTF-8.* not sent again as JSON: .*{advice}"):
            post_images(script.uri, PIXELS)
        with pytest.raises(ValueError, match=advice):
            post_images(script.uri, PIXELS, format="json")
        post_images(script.uri, PIXELS.astype(float), format="json")
    assert json.loads(script.bodies[-1])["data"] == PIXELS.tolist()


def test_a_script_that_answers_its_errors_with_200_gets_json_too():
    def answer(_handler, body):
        return 200, [4] if body[:1] == b"{" else {"error": "codec can't decode byte"}

    with Script(answer) as script:
        assert post_images(script.uri, PIXELS[:1] / 255.0).tolist() == [4]


def test_a_service_that_fails_later_is_not_taken_for_one_that_knows_no_idx():
    def answer(_handler, body):
        return zeros_for_idx(_handler, body) if len(script.bodies) == 1 else (500, {"message": "x"})

    with Script(answer) as script, pytest.raises(ScriptFailed):
        post_images(script.uri, PIXELS, batch_size=1)
    assert len(script.bodies) == 2


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.array([[0.1, np.nan]]), "image 0 holds NaN"),
        ((row for row in [[0.5], [0.5], [np.inf]]), "image 2 holds NaN or infinity"),
        (np.float64(3), r"shape \(\)"),
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\)"),
        ([["a", "b"]], "hold <U1, expected numbers"),
        ([[1.0, 2.0], [3.0]], "not of one length"),
        (np.zeros((2, 2), complex), "complex128"),
        (None, "NoneType"),
        ("digits.png", "hold <U10"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_before_it_is_sent(images, said):
    with Script(always(200, [])) as script, pytest.raises(ValueError, match=said):
        post_images(script.uri, images)
    assert script.bodies == []


@pytest.mark.parametrize(
    ("uri", "asked", "said"),
    [
        ("http://127.0.0.1:9/score", {"batch_size": 0}, "batch_size is 0"),
        ("http://127.0.0.1:9/score", {"api_key": KEY + "\nX-More: 1"}, "api_key has characters"),
        ("http://127.0.0.1:9/score", {"api_key": KEY + "\u20ac"}, "api_key has characters"),
        ("127.0.0.1/score", {}, "No scheme"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_no_key_is_shown(uri, asked, said):
    with pytest.raises(ValueError, match=said) as caught:
        post_images(uri, PIXELS, **asked)
    assert KEY not in str(caught.value)


# --- many images ---------------------------------------------------------------------------------


def test_batches_share_one_connection_and_are_bounded_by_their_numbers():
    with Script(zeros_for_idx) as script:
        post_images(script.uri, np.zeros((1000, 5)), batch_size=100)
        assert (len(script.bodies), script.connections) == (10, 1)
        post_images(script.uri, np.zeros((3, 3_000_000), np.uint8))
        post_images(script.uri, (np.zeros(784, np.uint8) for _ in range(6000)))
    sizes = [decode_idx(body).shape[0] for body in script.bodies[10:]]
    assert sizes == [1, 1, 1, 2040, 2040, 1920]


def test_memory_does_not_grow_with_the_number_of_images(scoring_uri, digits):
    def peak(pieces: int) -> int:
        tracemalloc.start()
        labels = post_images(scoring_uri, (digits[0] for _ in range(pieces)))
        assert len(labels) == 1000 * pieces
        grown = tracemalloc.get_traced_memory()[1] - labels.nbytes
        tracemalloc.stop()
        return grown

    assert peak(100) < 1.3 * peak(10)
    worker = server_of(scoring_uri)
    before = worker.memory_info().rss
    peak(100)
    assert worker.memory_info().rss < 1.1 * before


def test_what_takes_long_shows_progress(monkeypatch, capsys):
    at_once = {"delay": 0, "mininterval": 0}
    monkeypatch.setattr(client, "tqdm", lambda **settings: tqdm(**settings | at_once))
    with Script(zeros_for_idx) as script:
        post_images(script.uri, np.zeros((10, 5)), batch_size=2)
        assert "scoring" not in capsys.readouterr().err
        post_images(script.uri, np.zeros((2000, 5)), batch_size=500)
        assert "2000/2000" in capsys.readouterr().err


def test_a_quick_call_shows_no_bar(capsys):
    """Nor does one whose end is not known at the beginning."""
    with Script(zeros_for_idx) as script:
        post_images(script.uri, iter(np.zeros((2000, 1, 5))))
    assert capsys.readouterr() == ("", "")


def test_the_next_batch_is_encoded_while_the_present_one_is_scored(monkeypatch):
    """The server answers no batch before the one after it is encoded."""
    done, encoded, genuine = [], threading.Condition(), client.idx_body

    def encode(start, batch):
        with encoded:
            done.append(threading.current_thread())
            encoded.notify_all()
        return genuine(start, batch)

    def answer(handler, body):
        with encoded:
            assert encoded.wait_for(lambda: len(done) > min(len(script.bodies), 4), timeout=20)
        return zeros_for_idx(handler, body)

    monkeypatch.setattr(client, "idx_body", encode)
    with Script(answer) as script:
        assert len(post_images(script.uri, np.zeros((5, 4)), batch_size=1)) == 5
    assert len(set(done[1:])) == 1
    assert not done[-1].is_alive()


def test_an_iterable_is_read_in_the_thread_that_passed_it():
    def pieces():
        for _ in range(5):
            assert threading.current_thread() is threading.main_thread()
            yield PIXELS

    with Script(zeros_for_idx) as script:
        assert len(post_images(script.uri, pieces(), batch_size=3)) == 15


@pytest.mark.parametrize("wrong", ["the images", "an image", "the service", "Ctrl-C"])
def test_whatever_ends_a_call_leaves_nothing_running(wrong, interruptible):
    def pieces():
        yield from [PIXELS / 255.0] * 3
        if wrong == "the images":
            raise LookupError("no more images")
        yield np.full((3, 784), np.nan if wrong == "an image" else 0.0)

    def answer(handler, body):
        if len(script.bodies) == 3 and wrong == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        if len(script.bodies) == 3 and wrong == "the service":
            return 500, {"message": "no"}
        return zeros_for_idx(handler, body)

    told = {"the images": LookupError, "an image": ValueError, "the service": ScriptFailed}
    before = set(threading.enumerate())
    with Script(answer) as script:
        with pytest.raises(told.get(wrong, KeyboardInterrupt)) as raised:
            post_images(script.uri, pieces(), batch_size=3)
        left = [each.name for each in set(threading.enumerate()) - before]
    assert not any("ThreadPool" in name for name in left)
    assert raised.tb  # which holds the frames, and what lives in them


# --- keys ----------------------------------------------------------------------------------------


def fake_service(uri, keys=(KEY, "secondary"), *, kind=AciWebservice, **settings):
    service = create_autospec(kind, instance=True)
    settings = {"auth_enabled": True, "state": "Healthy"} | settings
    service.configure_mock(name="svc", scoring_uri=uri, **settings)
    service.get_keys.side_effect = lambda: keys
    return service


def key_check(valid):
    def answer(handler, body):
        if handler.headers["Authorization"] not in {f"Bearer {key}" for key in valid}:
            return 401, {"message": "no valid key"}
        return zeros_for_idx(handler, body)

    return answer


def test_a_key_is_sent_when_it_is_given(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("default login user password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Script(zeros_for_idx) as script:
        post_images(script.uri, PIXELS)
        post_images(script.uri, PIXELS, api_key=KEY + "\n")
        call_service(fake_service(script.uri, auth_enabled=False), PIXELS)
        call_service(fake_service(script.uri), PIXELS)
    assert script.keys == [None, f"Bearer {KEY}", None, f"Bearer {KEY}"]


def test_keys_are_fetched_once_and_again_after_a_401():
    valid = {KEY}
    with Script(key_check(valid)) as script:
        keys = [KEY, "secondary"]
        service = fake_service(script.uri, keys)
        for _ in range(3):
            assert call_service(service, PIXELS).tolist() == [0, 0, 0]
        assert service.get_keys.call_count == 1
        keys[0] = "regenerated"
        valid.symmetric_difference_update({KEY, "regenerated"})
        for _ in range(3):
            assert call_service(service, PIXELS, batch_size=1).tolist() == [0, 0, 0]
        assert service.get_keys.call_count == 2


def test_a_key_that_stays_refused_is_an_error_that_does_not_show_it():
    with Script(key_check({"another"})) as script:
        service = fake_service(script.uri)
        with pytest.raises(AuthenticationFailed, match="get_keys") as caught:
            call_service(service, PIXELS)
        assert service.get_keys.call_count == 2
        assert caught.value.status == 401
        with pytest.raises(AuthenticationFailed):
            post_images(script.uri, PIXELS)
    assert len(script.bodies) == 3


def test_no_error_holds_the_key():
    answers = [always(status, {"message": "no"}) for status in (400, 401, 413, 500, 503, 302, 201)]
    answers += [always(200, b"nonsense"), hang_up]
    for answer in answers:
        with Script(answer) as script, pytest.raises(ScoringError) as caught:
            post_images(script.uri, PIXELS, api_key=KEY, patience=0)
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in repr(error) + str(error) + str(vars(error))
            request = getattr(error, "request", None)
            assert KEY not in str(getattr(request, "headers", ""))
            error = error.__cause__ or error.__context__


def test_keys_that_cannot_be_fetched_are_told_in_time():
    service, never = fake_service("http://127.0.0.1:9/score"), threading.Event()
    service.get_keys.side_effect = WebserviceException('Code: 403 {"message": "not allowed"}')
    with pytest.raises(AuthenticationFailed, match="'svc' cannot be fetched: not allowed"):
        call_service(service, PIXELS)
    service.get_keys.side_effect = lambda: never.wait(60)
    with pytest.raises(AuthenticationFailed, match=r"no answer within 0\.2 s"):
        call_service(service, PIXELS, timeout=0.2)
    never.set()


def test_a_token_is_fetched_where_a_service_takes_tokens():
    valid = {"first"}
    with Script(key_check(valid)) as script:
        service = fake_service(
            script.uri, kind=AksWebservice, auth_enabled=False, token_auth_enabled=True
        )
        tokens = [SimpleNamespace(access_token=token) for token in ("first", "second")]
        service.get_access_token.side_effect = tokens
        for _ in range(2):
            assert call_service(service, PIXELS).tolist() == [0, 0, 0]
        valid.symmetric_difference_update({"first", "second"})
        assert call_service(service, PIXELS).tolist() == [0, 0, 0]
    assert service.get_access_token.call_count == 2


def test_a_service_that_is_not_deployed_yet():
    service = fake_service(None, state="Transitioning")
    with pytest.raises(ServiceUnavailable, match=r"'svc' .* Transitioning.*wait_for_deployment"):
        call_service(service, PIXELS)


# --- what goes wrong in the service --------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content", "error", "said"),
    [
        (400, {"message": "too blue"}, InputRejected, "too blue"),
        (404, b"<html>no such page</html>", InputRejected, "no such page"),
        (403, {"message": "no"}, AuthenticationFailed, "get_keys"),
        (413, {"message": "no"}, PayloadTooLarge, "batch_size"),
        (500, {"message": "script"}, ScriptFailed, "get_logs"),
        (502, b"", ServiceUnavailable, "answered 502: nothing"),
        (503, ["odd"], ServiceUnavailable, "Healthy"),
        (429, {"no message": 1}, ServiceUnavailable, "again"),
        (302, b"", ScoringError, "Is this the scoring URI"),
        (200, b"Healthy", ScoringError, "'Healthy'; expected a JSON list"),
        (200, [1, 2], ScoringError, "2 labels for 3 images"),
        (200, [1, 2, "3"], ScoringError, "expected a JSON list"),
        (200, [[1], [2], [3]], ScoringError, "expected a JSON list"),
        (200, {"labels": [1, 2, 3]}, ScoringError, "expected a JSON list"),
        (200, [None] * 3, ScoringError, "expected a JSON list"),
    ],
)
def test_refusals_are_told_apart(status, content, error, said):
    with Script(always(status, content)) as script, pytest.raises(error, match=said) as caught:
        post_images(script.uri, PIXELS)
    assert type(caught.value) is error
    assert caught.value.status == (status if status != 200 else None)
    assert len(script.bodies) <= 2  # as IDX and as JSON, and nothing was tried again


def hang_up(handler, _body):
    handler.connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0] + [0] * 4)
    )
    handler.connection.close()


def hang_up_in_the_answer(handler, _body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[0,")


@pytest.mark.parametrize("broken", [hang_up, hang_up_in_the_answer])
def test_a_broken_connection_is_tried_again(broken):
    def answer(handler, body):
        return broken(handler, body) if len(script.bodies) < 3 else zeros_for_idx(handler, body)

    with Script(answer) as script:
        assert post_images(script.uri, PIXELS).tolist() == [0, 0, 0]
    assert len(script.bodies) == 3
    assert len(set(script.bodies)) == 1


def test_nobody_there_is_told_within_the_patience():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServiceUnavailable, match=r"0\.3 seconds: HTTPC.*refused\. Is") as caught:
        post_images(f"http://127.0.0.1:{port}/score", PIXELS, patience=0.3)
    assert caught.value.status is None


def test_a_service_that_starts_meanwhile_is_waited_for():
    with Script(zeros_for_idx) as script:
        pass
    tried = threading.Event()

    def call():
        tried.set()
        return post_images(script.uri, PIXELS).tolist()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call)
        tried.wait(10)
        with Script(zeros_for_idx, urlsplit(script.uri).port):
            assert answer.result(20) == [0, 0, 0]


@pytest.mark.parametrize("within_the_answer", [False, True])
def test_a_time_out_is_not_tried_again(within_the_answer):
    done = threading.Event()

    def answer(handler, _body):
        if within_the_answer:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[0,")
        done.wait(30)

    with Script(answer) as script:
        with pytest.raises(ScoringTimeout, match=r"within 0\.2 seconds"):
            post_images(script.uri, PIXELS, timeout=0.2)
        done.set()
        assert len(script.bodies) == 1


def test_a_process_that_is_killed_costs_no_answer(scoring_uri, digits):
    """The container starts another; the batches before, during and after it come back right."""

    def pieces():
        for number in range(6):
            if number == 3:
                server_of(scoring_uri).kill()
            yield digits[0]

    labels = post_images(scoring_uri, pieces(), batch_size=1000, patience=60)
    assert np.array_equal(labels, np.tile(digits[1], 6))


def server_of(uri: str) -> psutil.Process:
    """The process that listens at a scoring URI."""
    (server,) = (
        process
        for process in psutil.Process().children(recursive=True)
        for socket_ in process.net_connections()
        if socket_.status == psutil.CONN_LISTEN and socket_.laddr.port == urlsplit(uri).port
    )
    return server


# --- ways to the service -------------------------------------------------------------------------


def test_proxies_of_the_environment_are_not_asked_for_the_loopback(
    monkeypatch, scoring_uri, digits
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for host in ("127.0.0.1", "localhost"):
        uri = scoring_uri.replace("127.0.0.1", host)
        assert post_images(uri, digits[0][:1]).tolist() == [digits[1][0]]
    with pytest.raises(ServiceUnavailable, match="proxy"):
        post_images("http://service.invalid/score", PIXELS, patience=0)
