"""Keys, retries, time-outs and proxies of scoring requests."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from azureml.core.webservice import AksWebservice
from azureml.exceptions import WebserviceException
from listening_process import find_listening_process
from scripted_server import (
    ScriptedServer,
    close_connection,
    close_within_response,
    mock_service,
    respond_always,
    zeros_for_idx,
)

from mnist_deploy import call_service, post_images
from mnist_deploy.errors import (
    AuthenticationFailed,
    ScoringError,
    ScoringTimeout,
    ServiceUnavailable,
)

pytest_plugins = ["scoring_server"]

KEY = "k3y-that-no-message-may-show"
PIXELS = np.zeros((3, 784), np.uint8)
NO_SERVER = "http://127.0.0.1:9/score"


# --- keys ----------------------------------------------------------------------------------------


def check_key(valid):
    def respond(handler, body):
        if handler.headers["Authorization"] not in {f"Bearer {key}" for key in valid}:
            return 401, {"message": "no valid key"}
        return zeros_for_idx(handler, body)

    return respond


def test_key_is_sent_only_if_there_is_one(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("default login user password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with ScriptedServer(zeros_for_idx) as server:
        post_images(server.uri, PIXELS)
        post_images(server.uri, PIXELS, api_key=KEY + "\n")
        call_service(mock_service(server.uri, auth_enabled=False), PIXELS)
        call_service(mock_service(server.uri, [KEY, "secondary"]), PIXELS)
    assert server.keys == [None, f"Bearer {KEY}", None, f"Bearer {KEY}"]


def test_key_is_fetched_once_and_again_after_a_401():
    valid = {KEY}
    with ScriptedServer(check_key(valid)) as server:
        keys = [KEY, "secondary"]
        service = mock_service(server.uri, keys)
        for _ in range(3):
            assert call_service(service, PIXELS).tolist() == [0, 0, 0]
        assert service.get_keys.call_count == 1
        keys[0] = "regenerated"
        valid.symmetric_difference_update({KEY, "regenerated"})
        for _ in range(3):
            assert call_service(service, PIXELS, batch_size=1).tolist() == [0, 0, 0]
        assert service.get_keys.call_count == 2


def test_second_401_raises_authentication_failed():
    with ScriptedServer(check_key({"another"})) as server:
        service = mock_service(server.uri)
        with pytest.raises(AuthenticationFailed, match="get_keys") as caught:
            call_service(service, PIXELS)
        assert service.get_keys.call_count == 2
        assert caught.value.status == 401
        with pytest.raises(AuthenticationFailed):
            post_images(server.uri, PIXELS)
    assert len(server.bodies) == 3


def test_exceptions_do_not_hold_the_key():
    statuses = (400, 401, 413, 424, 429, 500, 503, 302, 201)
    responses = [respond_always(status, {"message": "no"}) for status in statuses]
    responses += [respond_always(200, b"nonsense"), close_connection]
    for respond in responses:
        with ScriptedServer(respond) as server, pytest.raises(ScoringError) as caught:
            post_images(server.uri, PIXELS, api_key=KEY, retry_timeout=0)
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in repr(error) + str(error) + str(vars(error))
            request = getattr(error, "request", None)
            assert KEY not in str(getattr(request, "headers", ""))
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        (NO_SERVER, {"api_key": KEY + "\nX-More: 1"}, "api_key has characters"),
        (NO_SERVER, {"api_key": KEY + "\u20ac"}, "api_key has characters"),
        ("127.0.0.1/score", {"api_key": KEY}, "No scheme"),
    ],
)
def test_invalid_request_is_rejected_without_showing_the_key(uri, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        post_images(uri, PIXELS, **options)
    assert KEY not in str(caught.value)


def test_key_that_cannot_be_fetched_raises_authentication_failed():
    service, never = mock_service(NO_SERVER), threading.Event()
    service.get_keys.side_effect = WebserviceException('Code: 403 {"message": "not allowed"}')
    with pytest.raises(AuthenticationFailed, match="'svc' cannot be fetched: not allowed"):
        call_service(service, PIXELS)
    service.get_keys.side_effect = lambda: never.wait(60)
    with pytest.raises(AuthenticationFailed, match=r"within 0\.2 s"):
        call_service(service, PIXELS, timeout=0.2)
    never.set()


def test_token_is_fetched_and_renewed_for_token_authentication():
    valid = {"first"}
    with ScriptedServer(check_key(valid)) as server:
        service = mock_service(
            server.uri, kind=AksWebservice, auth_enabled=False, token_auth_enabled=True
        )
        tokens = [SimpleNamespace(access_token=token) for token in ("first", "second")]
        service.get_access_token.side_effect = tokens
        for _ in range(2):
            assert call_service(service, PIXELS).tolist() == [0, 0, 0]
        valid.symmetric_difference_update({"first", "second"})
        assert call_service(service, PIXELS).tolist() == [0, 0, 0]
    assert service.get_access_token.call_count == 2


def test_service_without_scoring_uri_raises_service_unavailable():
    service = mock_service(None, state="Transitioning")
    with pytest.raises(ServiceUnavailable, match=r"'svc' .* Transitioning.*wait_for_deployment"):
        call_service(service, PIXELS)


# --- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("break_connection", [close_connection, close_within_response])
def test_broken_connection_is_retried(break_connection):
    def respond(handler, body):
        is_broken = len(server.bodies) < 3
        return (break_connection if is_broken else zeros_for_idx)(handler, body)

    with ScriptedServer(respond) as server:
        assert post_images(server.uri, PIXELS).tolist() == [0, 0, 0]
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
def test_429_is_retried_with_backoff(headers):
    """ "Troubleshoot online endpoints": 429, "resend requests with exponential backoff"."""
    times = []

    def respond(handler, body):
        times.append(time.monotonic())
        return (429, b"", headers) if len(times) < 4 else zeros_for_idx(handler, body)

    with ScriptedServer(respond) as server:
        assert post_images(server.uri, PIXELS).tolist() == [0, 0, 0]
    assert len(set(server.bodies)) == 1
    pauses = np.diff(times)
    assert len(pauses) == 3
    assert (pauses >= (1 if headers else [0.05, 0.1, 0.2])).all()


def test_429_is_retried_no_longer_than_the_retry_timeout():
    server = ScriptedServer(respond_always(429, b""))
    with server, pytest.raises(ServiceUnavailable) as caught:
        post_images(server.uri, PIXELS, retry_timeout=0.3)
    assert caught.value.status == 429
    assert 2 <= len(server.bodies) <= 6


def test_refused_connection_raises_after_the_retry_timeout():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServiceUnavailable, match=r"0\.3 seconds: HTTPC.*refused\. Check") as caught:
        post_images(f"http://127.0.0.1:{port}/score", PIXELS, retry_timeout=0.3)
    assert caught.value.status is None


def test_service_that_starts_within_the_retry_timeout_responds():
    with ScriptedServer(zeros_for_idx) as server:
        pass
    started = threading.Event()

    def call():
        started.set()
        return post_images(server.uri, PIXELS).tolist()

    with ThreadPoolExecutor(1) as pool:
        labels = pool.submit(call)
        started.wait(10)
        with ScriptedServer(zeros_for_idx, urlsplit(server.uri).port):
            assert labels.result(20) == [0, 0, 0]


def test_container_process_that_is_killed_costs_no_batch(scoring_uri, digits):
    """The container starts another process; batches before, during and after it are scored."""

    def read_pieces():
        for number in range(6):
            if number == 3:
                find_listening_process(scoring_uri).kill()
            yield digits[0]

    labels = post_images(scoring_uri, read_pieces(), batch_size=1000, retry_timeout=60)
    assert np.array_equal(labels, np.tile(digits[1], 6))


# --- time-outs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("within_the_response", [False, True])
def test_request_that_timed_out_is_not_sent_again(within_the_response):
    done = threading.Event()

    def respond(handler, _body):
        if within_the_response:
            close_within_response(handler, _body)
        done.wait(30)

    with ScriptedServer(respond) as server:
        with pytest.raises(ScoringTimeout, match=r"within 0\.2 seconds"):
            post_images(server.uri, PIXELS, timeout=0.2)
        done.set()
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "options",
    [{"timeout": np.inf}, {"timeout": np.nan}, {"timeout": 0}, {"timeout": -1},
     {"retry_timeout": np.inf}, {"retry_timeout": -1}],
)  # fmt: skip
def test_invalid_seconds_are_rejected(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is .*; expected a finite number of seconds"):
        post_images(NO_SERVER, PIXELS, **options)


# --- proxies -------------------------------------------------------------------------------------


def test_proxies_of_the_environment_are_not_used_for_loopback(monkeypatch, scoring_uri, digits):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NO_SERVER)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for host in ("127.0.0.1", "localhost"):
        uri = scoring_uri.replace("127.0.0.1", host)
        assert post_images(uri, digits[0][:1]).tolist() == [digits[1][0]]
    with pytest.raises(ServiceUnavailable, match="proxy"):
        post_images("http://service.invalid/score", PIXELS, retry_timeout=0)
