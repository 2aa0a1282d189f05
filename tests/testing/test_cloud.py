"""What a test says of services comes to pass, and what reached them is on record."""

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


@pytest.fixture
def service(mocked_workspace, deploy):
    return deploy(mocked_workspace)


def score(service, images=IMAGES, **options):
    return list(md.call_service(service, images, **options))


VERBS = [name for name, verb in vars(MockedCloud).items() if inspect.isfunction(verb)]
VERBS = [name for name in VERBS if not name.startswith("_")]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_documented_and_exercised(verb):
    function = getattr(MockedCloud, verb)
    documented = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.keys() - {"self", "service"}:
        assert re.search(rf"^\*?{parameter}\b", documented, re.M)
    assert f"`{verb}`" in (mnist_deploy.testing.__doc__ or "")
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    assert f"cloud.{verb}(" in tests


class TestAnswers:
    def test_of_a_model(self, service, cloud):
        from sklearn.dummy import DummyClassifier

        cloud.answer_with(DummyClassifier(strategy="constant", constant=4).fit(IMAGES, [4, 4, 4]))
        assert score(service) == [4, 4, 4]

    def test_of_a_function_that_gets_the_images(self, service, cloud, mnist_sample):
        cloud.answer_with(lambda images: (images.mean(axis=1) > 0.1).astype(int))
        bright = mnist_sample.images.mean(axis=1) > 0.1
        assert score(service, mnist_sample.images) == list(bright)

    def test_of_a_list_in_its_order_over_several_requests(self, service, cloud):
        cloud.answer_with([7, 2, 1])
        assert score(service, batch_size=2) == [7, 2, 1]
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match=r"answer_with\(\[7, 2, 1\]\) is enough for 3"):
            score(service)

    @pytest.mark.parametrize("labels", [["red", "white", "red"], [0.5, 1.5, 2.5]])
    def test_may_be_of_any_type(self, service, cloud, labels):
        cloud.answer_with(labels)
        assert score(service) == labels

    @pytest.mark.parametrize("scale", [1, 1 / 3, 100])
    def test_come_for_numbers_as_they_were_sent(self, service, cloud, scale):
        numbers = np.random.default_rng(0).random((3, 13)) * scale
        cloud.answer_with(lambda images: images.sum(axis=1))
        np.testing.assert_allclose(score(service, numbers), numbers.sum(axis=1))

    def test_differ_between_services(self, mocked_workspace, deploy, cloud):
        first, second = deploy(mocked_workspace, "first"), deploy(mocked_workspace, "second")
        cloud.answer_with(lambda images: [1] * len(images))
        cloud.refuse(503, service="second")
        assert score(first) == [1, 1, 1]
        with pytest.raises(ServiceUnavailable):
            score(second)
        cloud.answer_with([5, 5, 5])  # the last word, for all
        assert score(second) == [5, 5, 5]

    def test_of_the_wrong_number(self, service, cloud):
        cloud.answer_with(lambda images: [1])
        with pytest.raises(ScoringError, match="1 labels for 3 images"):
            score(service)


class TestAnswersInTurn:
    def test_one_for_each_request(self, service, cloud):
        cloud.answer_in_turn(
            503,
            requests.ReadTimeout,
            KeyError("no such column"),
            KeyError("no such column"),  # the client asks once more, in JSON
            lambda images: images[:, 0],
            [7, 2, 1],
            np.array([4, 4, 4]),
        )
        for error in (ServiceUnavailable, ScoringTimeout, ScriptFailed):
            with pytest.raises(error):
                score(service)
        assert [score(service) for _ in range(3)] == [[0, 0, 0], [7, 2, 1], [4, 4, 4]]
        assert "no such column" in service.get_logs()
        assert not cloud.errors  # that one was meant
        statuses = [503, None, 500, 500, 200, 200, 200]
        cloud.assert_requests(*[("svc", status) for status in statuses])

    def test_while_nobody_listens_at_first(self, service, cloud):
        cloud.answer_in_turn(requests.ConnectionError, requests.ConnectionError, [7, 2, 1])
        assert score(service) == [7, 2, 1]
        assert cloud.clock.slept == pytest.approx(0.1 + 0.2)

    def test_a_request_too_many_is_an_error(self, service, cloud):
        cloud.answer_in_turn([7, 2, 1])
        score(service)
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match=r"answer_in_turn.* is enough for 1 request"):
            score(service)

    def test_each_service_has_its_own(self, mocked_workspace, deploy, cloud):
        first, second = deploy(mocked_workspace, "first"), deploy(mocked_workspace, "second")
        cloud.answer_in_turn([1, 1, 1], [3, 3, 3], service="first")
        cloud.answer_in_turn([2, 2, 2], service="second")
        assert [score(each)[0] for each in (first, second, first)] == [1, 2, 3]
        cloud.assert_requests(("first", 200), ("second", 200), ("first", 200))

    @pytest.mark.parametrize("wrong", [42, 2000])
    def test_a_status_that_is_none_is_refused_at_once(self, cloud, wrong):
        with pytest.raises(ValueError, match=str(wrong)):
            cloud.answer_in_turn(wrong)


class TestDelays:
    def test_pass_on_the_mocked_clock(self, service, cloud):
        cloud.delay(30)
        start, began = cloud.clock.monotonic(), time.monotonic()
        score(service, batch_size=1)
        assert cloud.clock.slept == 90
        assert 90 <= cloud.clock.monotonic() - start < 100
        assert cloud.clock.time() > time.time() + 80
        assert time.monotonic() - began < 20
        assert cloud.clock.perf_counter  # the rest is the module's own

    def test_longer_than_the_caller_waits(self, service, cloud):
        cloud.delay(30)
        with pytest.raises(ScoringTimeout, match="20 seconds"):
            score(service, timeout=20)
        assert cloud.clock.slept == 20
        cloud.assert_requests(("svc", None))
        cloud.recover()
        assert len(score(service, timeout=20)) == 3


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
    def test_refusals(self, service, cloud, status, error, monkeypatch):
        slept = []
        monkeypatch.setattr(time, "sleep", slept.append)
        cloud.refuse(status, "not today")
        with pytest.raises(error, match="not today") as caught:
            score(service)
        assert caught.value.status == status
        with pytest.raises(WebserviceException, match=str(status)):
            service.run(json.dumps({"data": [[0.0]]}))
        assert not any(slept)  # though the SDK asks some of them four times

    def test_time_out_takes_no_time(self, service, cloud):
        cloud.time_out()
        with pytest.raises(ScoringTimeout, match="3600"):
            score(service, timeout=3600)
        cloud.assert_requests(("svc", None))
        assert cloud.clock.slept == 3600

    def test_a_caller_without_a_time_out_would_wait_for_ever(self, service, cloud):
        cloud.time_out()
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match="for ever"):
            requests.post(service.scoring_uri, b'{"data": [[0]]}')

    def test_cut_off(self, service, cloud):
        cloud.cut_off()
        with pytest.raises(ServiceUnavailable, match="refused"):
            score(service)
        assert 8 < cloud.clock.slept <= 10  # of the client's patience
        assert {request.status for request in cloud.requests} == {None}

    def test_a_check_inside_the_answer_reaches_the_test(self, service, cloud):
        def checking(images):
            assert images.max() > 0, "all black"
            return [0] * len(images)

        cloud.answer_with(checking)
        cloud.expect_error(AssertionError)
        with pytest.raises(AssertionError, match="all black"):
            score(service)

    def test_deployment_that_never_finishes(self, mocked_workspace, deploy, cloud):
        cloud.never_finish()
        with pytest.raises(DeploymentError) as caught:
            deploy(mocked_workspace)  # with ten minutes of patience, which pass at once
        assert caught.value.state == "Transitioning"
        assert Webservice(mocked_workspace, "svc").state == "Transitioning"

    def test_waiting_for_it_without_a_limit_fails_instead_of_hanging(self, mocked_workspace, cloud):
        cloud.never_finish()
        inference_config = md.build_inference_config(md.fetch_environment(mocked_workspace))
        model = md.fetch_model(mocked_workspace)
        arguments = [model], inference_config, md.build_aci_config()
        service = Model.deploy(mocked_workspace, "svc", *arguments)
        with pytest.raises(WebserviceException, match="exceeded timeout"):
            service.wait_for_deployment(timeout_sec=3600)
        with pytest.raises(TimeoutError, match="for ever"):
            service.wait_for_deployment()

    def test_recovery(self, mocked_workspace, deploy, cloud):
        service, other = deploy(mocked_workspace), deploy(mocked_workspace, "other")
        expected = score(service)
        cloud.refuse(500, service="svc")
        cloud.refuse(503, service="other")
        for each in (service, other):
            with pytest.raises(ScoringError):
                score(each)
        cloud.recover(service="svc")
        assert score(service) == expected
        with pytest.raises(ServiceUnavailable):
            score(other)  # which was not meant
        cloud.recover()
        assert score(other) == expected


class TestRecord:
    def test_of_requests(self, service, cloud, mnist_sample):
        score(service, mnist_sample.images[:5], batch_size=3)
        cloud.refuse(413)
        with pytest.raises(PayloadTooLarge):
            md.post_images(service.scoring_uri, mnist_sample.images[:1])
        cloud.assert_requests(("svc", 200), ("svc", 200), ("svc", 413))
        sent = np.concatenate([request.images for request in cloud.requests[:2]])
        np.testing.assert_array_equal(sent, mnist_sample.images[:5])
        for wrong in ([], [("svc", 200)] * 3, [("svc", 413), ("svc", 200), ("svc", 200)]):
            with pytest.raises(AssertionError, match=r"there came .*413"):
                cloud.assert_requests(*wrong)

    def test_of_a_body_that_holds_no_images(self, service, cloud):
        assert requests.post(service.scoring_uri, b'{"dat": []}').status_code == 400
        assert cloud.requests[0].images is None
        assert cloud.requests[0].body == b'{"dat": []}'

    def test_of_the_sdk(self, mocked_workspace, deploy, cloud):
        with md.closing_service(deploy(mocked_workspace, auth_enabled=True)) as service:
            score(service)
        names = [name for name, *_ in cloud.calls]
        assert [n for n in names if n != "Webservice.get_logs"] == [
            "Environment.get",
            "Model.deploy",
            "Webservice.wait_for_deployment",
            "Webservice.get_keys",
            "Webservice.delete",
        ]
        Model.deploy.assert_called_once()
        assert Model.deploy.call_args.args[:2] == (mocked_workspace, "svc")
        Model.register.assert_not_called()

    def test_holds_no_key(self, mocked_workspace, deploy, cloud):
        service = deploy(mocked_workspace, auth_enabled=True)
        score(service)
        shown = f"{cloud.calls}{cloud.requests}{service}{service.get_logs()}"
        assert not [key for key in service.get_keys() if key in shown]
