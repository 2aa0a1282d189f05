"""Traffic: split, mirrored, selected by a header, and moved between deployments."""

from __future__ import annotations

import threading

import pytest
import requests
from azure.ai.ml.entities import (
    CodeConfiguration,
    ManagedOnlineEndpoint,
    OnlineRequestSettings,
)
from polling import wait_until
from weights_service import SCRIPT

pytestmark = pytest.mark.processes

ROWS = {"data": [[1, 2, 3]]}
BLUE, GREEN = [321.0], [642.0]


@pytest.fixture(scope="module")
def green(tmp_path_factory):
    """A script whose answers are twice those of the shared script, and that prints each request."""
    folder = tmp_path_factory.mktemp("green")
    script = SCRIPT.replace("float(", "2 * float(")
    script = script.replace("    return", "    print('scored')\n    return")
    (folder / "score.py").write_text(script)
    return CodeConfiguration(code=str(folder), scoring_script="score.py")


@pytest.fixture(scope="module")
def endpoint(client, deploy, green):
    """An endpoint with two deployments."""
    made = client.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="two-of-them", auth_mode="aml_token")
    ).result()
    deploy(made.name, "blue")
    deploy(made.name, "green", code_configuration=green)
    yield made
    client.online_endpoints.begin_delete(made.name).result()


@pytest.fixture
def split(client, endpoint):
    """A function that sets the traffic and returns a function that sends a request."""

    def split(traffic: dict[str, int], mirror: dict[str, int] | None = None):
        endpoint.traffic, endpoint.mirror_traffic = traffic, mirror or {}
        client.online_endpoints.begin_create_or_update(endpoint).result()
        token = client.online_endpoints.get_keys(endpoint.name).access_token
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {token}"

        def send(**headers: str) -> requests.Response:
            return session.post(endpoint.scoring_uri, json=ROWS, headers=headers, timeout=30)

        return send

    return split


def answers(send, count: int) -> list[list[float]]:
    found = [send() for _ in range(count)]
    assert {each.status_code for each in found} == {200}
    return [each.json() for each in found]


def is_likely(hits: int, count: int, share: float) -> bool:
    """Whether `hits` is within three standard deviations of the expected value."""
    return abs(hits - count * share) <= 3 * (count * share * (1 - share)) ** 0.5


def test_requests_are_split_by_traffic(split):
    found = answers(split({"blue": 90, "green": 10}), 1000)
    assert is_likely(found.count(GREEN), 1000, 0.1), found.count(GREEN)
    assert found.count(BLUE) + found.count(GREEN) == 1000


def test_mirrored_requests_are_answered_by_the_live_deployment(client, endpoint, split):
    send = split({"blue": 100}, {"green": 30})

    def requested() -> int:
        log = client.online_deployments.get_logs("green", endpoint.name, lines=100_000)
        return log.count("scored")

    before = requested()
    assert answers(send, 1000) == [BLUE] * 1000
    wait_until(lambda: is_likely(requested() - before, 1000, 0.3))


def test_deployment_header_selects_the_deployment(split):
    send = split({"blue": 100})
    name = "azureml-model-deployment"
    assert send(**{name: "green"}).json() == GREEN
    assert send().json() == BLUE
    assert send(**{name: "none"}).status_code == 404


def test_request_with_an_invalid_token_is_rejected(endpoint, split):
    send = split({"blue": 100})
    assert send(Authorization="Bearer x").status_code == 401
    assert send().status_code == 200


def test_script_error_does_not_fail_the_endpoint(split):
    send = split({"blue": 50, "green": 50})
    headers = send().request.headers
    for _ in range(10):
        answer = requests.post(send().url, data=b"{}", headers=headers, timeout=30)
        assert answer.status_code == 424
        assert answer.headers["ms-azureml-model-error-statuscode"] == "500"


def test_rollout_under_load_loses_no_request(client, deploy, green):
    endpoint = client.online_endpoints.begin_create_or_update(
        ManagedOnlineEndpoint(name="rolls-over")
    ).result()
    many = OnlineRequestSettings(max_concurrent_requests_per_instance=100)
    deploy(endpoint.name, "blue", request_settings=many)
    key = client.online_endpoints.get_keys(endpoint.name).primary_key
    headers = {"Authorization": f"Bearer {key}"}
    outcomes: list[object] = []
    over = threading.Event()

    def load() -> None:
        with requests.Session() as session:
            while not over.is_set():
                try:
                    answer = session.post(
                        endpoint.scoring_uri, json=ROWS, headers=headers, timeout=30
                    )
                    outcomes.append(answer.json() if answer.status_code == 200 else answer.text)
                except requests.RequestException as error:
                    outcomes.append(error)

    def share(**traffic: int) -> None:
        endpoint.traffic = traffic
        client.online_endpoints.begin_create_or_update(endpoint).result()

    share(blue=100)
    clients = [threading.Thread(target=load) for _ in range(8)]
    for each in clients:
        each.start()
    deploy(endpoint.name, "green", code_configuration=green, request_settings=many)
    share(blue=90, green=10)
    share(blue=50, green=50)
    share(green=100)
    client.online_deployments.begin_delete("blue", endpoint.name).result()
    wait_until(lambda: len(outcomes) > 500)
    wait_until(lambda: outcomes[-1] == GREEN)
    over.set()
    for each in clients:
        each.join()
    client.online_endpoints.begin_delete(endpoint.name).result()
    assert [each for each in outcomes if each not in (BLUE, GREEN)] == []
    assert outcomes[-50:] == [GREEN] * 50
