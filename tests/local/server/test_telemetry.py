"""Application Insights: telemetry of a service, and rejected telemetry."""

from __future__ import annotations

import contextlib
import gzip
import time
from http.client import HTTPConnection

import pytest
import requests
from azureml.core import Model
from azureml.core.webservice import AciWebservice, Webservice
from azureml.exceptions import WebserviceException
from polling import wait_until
from weights_service import make_inference_config

from mnist_deploy.local.server.telemetry import MAX_BODY

SCRIPT = """
import json
def init(): print("the script has started")
def run(raw):
    print("scored " + raw)
    if raw == "wrong": raise ValueError("a wrong question")
    return 1
"""


def listed(call, name: str) -> dict:
    services = call("GET", "/workspace").json()["services"]
    return next(service for service in services if service["name"] == name)


def usage(call, name: str) -> dict:
    return listed(call, name)["usage"]


def traces(call, name: str) -> list[str]:
    return [text for _, text in listed(call, name)["traces"]]


@pytest.mark.processes
def test_service_sends_telemetry_while_app_insights_is_enabled(local_ws, call, tmp_path):
    def deployed(**more) -> AciWebservice:
        return Model.deploy(
            local_ws,
            "watched",
            [],
            make_inference_config(tmp_path, SCRIPT),
            AciWebservice.deploy_configuration(1, 1, **more),
            overwrite=True,
        )

    service = deployed(enable_app_insights=True)
    service.wait_for_deployment()
    assert Webservice(local_ws, "watched").enable_app_insights
    for raw in ("one", "two", "wrong"):
        requests.post(service.scoring_uri, raw, timeout=10)
    seen = wait_until(lambda: (u := usage(call, "watched"))["requests"] == 3 and u, 30)
    assert seen["failed"] == 1
    assert 0 <= seen["p50"] <= seen["p95"] < 5
    messages = wait_until(lambda: len(t := traces(call, "watched")) > 2 and t)
    assert any("scored two" in text for text in messages)
    log = service.get_logs()
    assert "scored two" in log
    assert "a wrong question" in log

    service.update(enable_app_insights=False)
    service.wait_for_deployment()
    assert not Webservice(local_ws, "watched").enable_app_insights
    requests.post(service.scoring_uri, "three", timeout=10)
    # The requests of the stopped container stay counted; its log ends with it.
    wait_until(lambda: usage(call, "watched")["requests"] == 4)
    wait_until(lambda: "scored three" in service.get_logs())

    service.update(enable_app_insights=True)  # a new container, after which the last one has ended
    service.wait_for_deployment()
    requests.post(service.scoring_uri, "four", timeout=10)
    wait_until(lambda: any("scored four" in text for text in traces(call, "watched")), 30)
    assert not any("scored three" in text for text in traces(call, "watched"))
    service.delete()


@pytest.mark.processes
def test_failed_init_is_reported_at_once_and_traced(local_ws, call, tmp_path):
    service = Model.deploy(
        local_ws,
        "watched-failing",
        [],
        make_inference_config(tmp_path, "def init(): 1 / 0\ndef run(raw): pass\n"),
        AciWebservice.deploy_configuration(1, 1, enable_app_insights=True),
    )
    began = time.monotonic()
    with pytest.raises(WebserviceException, match="ZeroDivisionError"):
        service.wait_for_deployment()
    assert time.monotonic() - began < 20
    texts = traces(call, "watched-failing")
    assert any("ZeroDivisionError" in text or "UserScript" in text for text in texts)
    service.delete()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 200),
        (b'[{"iKey": "x", "data": {"baseType": "RequestData"}}]', 400),
        (b'[{"iKey": 5}]', 400),
        (b"{", 400),
        (gzip.compress(b"[" + b" " * (20 << 20) + b"]"), 400),
        (b"\x1f\x8bno gzip", 400),
    ],
)
def test_telemetry_without_a_valid_key_is_rejected(endpoint, body, status):
    url = endpoint.url.replace("https", "http") + "/v2.1/track"
    headers = {"Content-Encoding": "gzip"} if body.startswith(b"\x1f\x8b") else {}
    answer = requests.post(url, body, headers=headers, timeout=10)
    assert answer.status_code == status
    if b"RequestData" in body:
        assert answer.json()["itemsAccepted"] == 0


def test_telemetry_above_the_size_limit_is_rejected_before_it_is_read(endpoint):
    connection = HTTPConnection(endpoint.url.removeprefix("https://"), timeout=5)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v2.1/track")
        connection.putheader("Content-Length", str(MAX_BODY + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
