"""Settings of services take effect, and the requests to services are recorded."""

from __future__ import annotations

import inspect
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from azureml.core import Model, Webservice
from azureml.exceptions import WebserviceException
from sklearn.dummy import DummyClassifier

import mnist_deploy as md
import mnist_deploy.testing
from mnist_deploy.errors import (
    AuthenticationFailed,
    DeploymentError,
    InputRejected,
    PayloadTooLarge,
    ScoringError,
    ScoringTimeout,
    ScriptFailed,
    ServiceUnavailable,
)
from mnist_deploy.testing.cloud import MockedCloud

IMAGES = np.zeros((3, 784))
VERBS = [name for name, verb in vars(MockedCloud).items() if inspect.isfunction(verb)]


def score(service, images=IMAGES, **options):
    return list(md.call_service(service, images, **options))


@pytest.fixture
def other_service(mocked_workspace, deploy, tmp_path, monkeypatch):
    """A service whose script is not the tutorial's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.py").write_text("def init(): ...\ndef run(data): return []\n")
    return deploy(mocked_workspace, "other", script="any.py")


@pytest.fixture
def two(mocked_workspace, deploy):
    return deploy(mocked_workspace, "first"), deploy(mocked_workspace, "second")


@pytest.mark.parametrize("verb", [name for name in VERBS if not name.startswith("_")])
def test_each_method_is_documented_and_tested(verb):
    function = getattr(MockedCloud, verb)
    documented = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.keys() - {"self", "service"}:
        assert re.search(rf"^\*?{parameter}\b", documented, re.M)
    readme = Path(mnist_deploy.testing.__file__).with_name("README.md")
    assert f"`{verb}`" in readme.read_text(encoding="utf-8")
    tests = "".join(
        file.read_text(encoding="utf-8") for file in Path(__file__).parents[1].rglob("test_*.py")
    )
    assert f"cloud.{verb}(" in tests


class TestAnswers:
    @pytest.mark.parametrize(
        ("source", "labels"),
        [
            (DummyClassifier(strategy="constant", constant=4).fit(IMAGES, [4, 4, 4]), [4, 4, 4]),
            (["red", "white", "red"], ["red", "white", "red"]),  # labels of any type
            ([0.5, 1.5, 2.5], [0.5, 1.5, 2.5]),
        ],
    )
    def test_labels_come_from_a_model_or_a_list(self, service, cloud, source, labels):
        cloud.respond_with(source)
        assert score(service) == labels

    def test_labels_of_a_list_are_used_in_order_over_several_requests(self, service, cloud):
        cloud.respond_with([7, 2, 1])
        assert score(service, batch_size=2) == [7, 2, 1]
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match=r"respond_with\(\[7, 2, 1\]\) is enough for 3"):
            score(service)

    @pytest.mark.parametrize("scale", [1, 1 / 3, 100])
    def test_function_receives_the_numbers_that_were_sent(self, other_service, cloud, scale):
        numbers = np.random.default_rng(0).random((3, 13)) * scale
        cloud.respond_with(lambda images: images.sum(axis=1))
        np.testing.assert_allclose(score(other_service, numbers), numbers.sum(axis=1))

    def test_answers_differ_between_services(self, two, cloud):
        first, second = two
        cloud.respond_with(lambda images: [1] * len(images))
        cloud.reject(503, service="second")
        assert score(first) == [1, 1, 1]
        with pytest.raises(ServiceUnavailable):
            score(second)
        cloud.respond_with([5, 5, 5])  # a later setting, for all
        assert score(second) == [5, 5, 5]

    def test_wrong_number_of_labels_is_an_error(self, service, cloud):
        cloud.respond_with(lambda images: [1])
        with pytest.raises(ScoringError, match="1 items for 3 rows"):
            score(service)


class TestOtherScripts:
    """Of a script that is not the tutorial's, a function gets the JSON and returns any value."""

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ({"input_data": {"columns": ["a"], "data": [[1]]}}, None),
            ("text", "text"),
            ([{"a": 1}], None),
        ],
    )
    def test_function_gets_parsed_json(self, other_service, cloud, sent, expected):
        got = []
        cloud.respond_with(got.append)
        assert requests.post(other_service.scoring_uri, json=sent).json() == {}
        assert got == [sent]
        assert (cloud.requests[0].json, cloud.requests[0].format) == (sent, "json")

    @pytest.mark.parametrize("sent", [[[1, 2], [3, 4]], {"data": [[1, 2], [3, 4]]}])
    def test_function_gets_an_array_of_rows_of_numbers(self, other_service, cloud, sent):
        cloud.respond_with(lambda rows: {"sums": rows.sum(axis=1), "count": len(rows)})
        answer = requests.post(other_service.scoring_uri, json=sent)
        assert answer.json() == {"sums": [3, 7], "count": 2}

    @pytest.mark.parametrize("value", [{"predict": [1]}, "a text"])
    def test_value_is_the_whole_answer(self, other_service, cloud, value):
        cloud.respond_with(value)
        assert requests.post(other_service.scoring_uri, json=[]).json() == value

    @pytest.mark.parametrize(
        ("method", "body", "status", "message"),
        [
            ("POST", b"\xff", 400, "cannot be decoded as UTF-8"),
            ("POST", b"{", 500, "scoring script"),
            ("PUT", b"{}", 405, "not allowed"),
        ],
    )
    def test_unreadable_request_is_rejected(self, other_service, method, body, status, message):
        response = requests.request(method, other_service.scoring_uri, data=body)
        assert (response.status_code, message in response.json()["message"]) == (status, True)

    def test_idx_that_a_json_script_rejects_uses_no_turn(self, other_service, cloud):
        cloud.respond_in_turn([7, 2, 1])
        assert score(other_service, format="auto") == [7, 2, 1]
        assert [each.format for each in cloud.requests][-1] == "json"


class TestAnswersInTurn:
    def test_each_request_uses_one_answer(self, service, cloud):
        cloud.respond_in_turn(
            503,
            requests.ReadTimeout,
            KeyError("no such column"),
            KeyError("no such column"),  # the client repeats the request in JSON
            lambda images: images[:, 0],
            [7, 2, 1],
            np.array([4, 4, 4]),
        )
        for error in (ServiceUnavailable, ScoringTimeout, ScriptFailed):
            with pytest.raises(error):
                score(service)
        assert [score(service) for _ in range(3)] == [[0, 0, 0], [7, 2, 1], [4, 4, 4]]
        assert "no such column" in service.get_logs()
        assert not cloud.errors  # an exception that was set is no error of the test
        statuses = [503, None, 500, 500, 200, 200, 200]
        cloud.assert_requests(*[("svc", status) for status in statuses])

    def test_surplus_request_is_an_error_and_refused_connections_are_retried(self, service, cloud):
        cloud.respond_in_turn(requests.ConnectionError, requests.ConnectionError, [7, 2, 1])
        assert score(service) == [7, 2, 1]
        assert cloud.clock.slept == pytest.approx(0.1 + 0.2)
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match=r"respond_in_turn.* is enough for 3 requests"):
            score(service)

    def test_each_service_has_answers_of_its_own(self, two, cloud):
        first, second = two
        cloud.respond_in_turn([1, 1, 1], [3, 3, 3], service="first")
        cloud.respond_in_turn([2, 2, 2], service="second")
        assert [score(each)[0] for each in (first, second, first)] == [1, 2, 3]
        cloud.assert_requests(("first", 200), ("second", 200), ("first", 200))

    @pytest.mark.parametrize("wrong", [42, 2000])
    def test_unknown_status_is_rejected_at_once(self, cloud, wrong):
        with pytest.raises(ValueError, match=str(wrong)):
            cloud.respond_in_turn(wrong)


class TestTime:
    def test_delay_passes_on_the_mocked_clock(self, service, cloud):
        cloud.delay(30)
        start, ticks, began = cloud.clock.monotonic(), cloud.clock.perf_counter(), time.monotonic()
        score(service, batch_size=1)
        assert cloud.clock.slept == 90
        assert 90 <= cloud.clock.monotonic() - start < 100
        assert 90 <= cloud.clock.perf_counter() - ticks < 100
        assert cloud.clock.time() > time.time() + 80
        assert time.monotonic() - began < 20
        assert cloud.clock.strftime("%Y")  # the rest is the module's own

    @pytest.mark.parametrize(("verb", "seconds"), [("delay", 20), ("time_out", 3600)])
    def test_caller_waits_until_its_time_out(self, service, cloud, verb, seconds):
        cloud.delay(30) if verb == "delay" else cloud.time_out()
        with pytest.raises(ScoringTimeout, match=f"{seconds} seconds"):
            score(service, timeout=seconds)
        assert cloud.clock.slept == seconds
        cloud.assert_requests(("svc", None))
        cloud.recover()
        assert len(score(service, timeout=seconds)) == 3

    def test_request_without_a_time_out_is_an_error(self, service, cloud):
        cloud.time_out()
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match="without end"):
            requests.post(service.scoring_uri, json.dumps({"data": IMAGES.tolist()}))

    def test_unfinished_deployment_times_out_on_the_mocked_clock(
        self, mocked_workspace, deploy, begin, cloud
    ):
        cloud.never_finish()
        with pytest.raises(DeploymentError) as caught:
            deploy(mocked_workspace)  # whose time-out of ten minutes passes at once
        assert caught.value.state == "Transitioning"
        assert Webservice(mocked_workspace, "svc").state == "Transitioning"
        service = begin(mocked_workspace, "other")
        with pytest.raises(WebserviceException, match="exceeded timeout"):
            service.wait_for_deployment(timeout_sec=3600)
        with pytest.raises(TimeoutError, match="without end"):
            service.wait_for_deployment()


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, InputRejected),
            (401, AuthenticationFailed),
            (403, AuthenticationFailed),
            (413, PayloadTooLarge),
            (500, ScriptFailed),
            (502, ServiceUnavailable),
            (503, ServiceUnavailable),
        ],
    )
    def test_error_response_raises_the_matching_exception(
        self, service, cloud, status, error, monkeypatch
    ):
        slept = []
        monkeypatch.setattr(time, "sleep", slept.append)
        cloud.reject(status, "not today")
        with pytest.raises(error, match="not today") as caught:
            score(service)
        assert caught.value.status == status
        with pytest.raises(WebserviceException, match=str(status)):
            service.run(json.dumps({"data": [[0.0]]}))
        assert not any(slept)  # although the SDK repeats some requests three times

    def test_refused_connection_is_retried_until_the_time_limit(self, service, cloud):
        cloud.cut_off()
        with pytest.raises(ServiceUnavailable, match="refused"):
            score(service)
        assert 8 < cloud.clock.slept <= 10  # of the retry time-out
        assert {request.status for request in cloud.requests} == {None}

    def test_init_error_may_be_empty(self, mocked_workspace, deploy, cloud):
        cloud.fail_init("")
        with pytest.raises(DeploymentError) as caught:
            deploy(mocked_workspace)
        assert caught.value.state == "Failed"

    def test_recovered_service_answers_again(self, two, cloud):
        first, second = two
        expected = score(first)
        cloud.reject(500, service="first")
        cloud.reject(503, service="second")
        for each in two:
            with pytest.raises(ScoringError):
                score(each)
        cloud.recover(service="first")
        assert score(first) == expected
        with pytest.raises(ServiceUnavailable):
            score(second)  # its setting remains
        cloud.recover()
        assert score(second) == expected


class TestRecord:
    def test_requests_are_recorded(self, service, cloud, mnist_sample):
        score(service, mnist_sample.images[:5], batch_size=3)
        cloud.reject(413)
        with pytest.raises(PayloadTooLarge):
            md.post_images(service.scoring_uri, mnist_sample.images[:1])
        cloud.assert_requests(("svc", 200), ("svc", 200), ("svc", 413))
        sent = np.concatenate([request.images for request in cloud.requests[:2]])
        np.testing.assert_array_equal(sent, mnist_sample.images[:5])
        for wrong in ([], [("svc", 200)] * 3, [("svc", 413), ("svc", 200), ("svc", 200)]):
            with pytest.raises(AssertionError, match=r"there were .*413"):
                cloud.assert_requests(*wrong)

    def test_body_without_images_is_recorded(self, service, cloud):
        assert requests.post(service.scoring_uri, b'{"dat": []}').status_code == 400
        assert (cloud.requests[0].images, cloud.requests[0].body) == (None, b'{"dat": []}')

    def test_body_from_a_file_is_recorded(self, service, cloud, tmp_path):
        (tmp_path / "body").write_bytes(json.dumps({"data": IMAGES.tolist()}).encode())
        with open(tmp_path / "body", "rb") as body:
            assert len(requests.post(service.scoring_uri, body).json()) == 3
        np.testing.assert_array_equal(cloud.requests[0].images, IMAGES)

    def test_calls_of_the_sdk_are_recorded_without_keys(self, mocked_workspace, deploy, cloud):
        with md.closing_service(deploy(mocked_workspace, auth_enabled=True)) as service:
            score(service)
            keys = service.get_keys()
            shown = f"{cloud.calls}{cloud.requests}{service}{service.get_logs()}"
        names = [name for name, *_ in cloud.calls]
        assert [name for name in names if name != "Webservice.get_logs"] == [
            "Environment.get",
            "Model.deploy",
            "Webservice.wait_for_deployment",
            *["Webservice.get_keys"] * 2,
            "Webservice.delete",
        ]
        Model.deploy.assert_called_once()
        assert Model.deploy.call_args.args[:2] == (mocked_workspace, "svc")
        Model.register.assert_not_called()
        assert not [key for key in keys if key in shown]
