"""Concurrent creation, change and deletion of endpoints, without lost or mixed-up requests."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from polling import wait_until

from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.deployments import DeploymentSpec
from mnist_deploy.local.core.endpoints import Endpoint, Endpoints, EndpointSpec
from mnist_deploy.local.core.faults import Conflict, Fault, NotFound
from mnist_deploy.local.core.process_runtime import ProcessRuntime
from mnist_deploy.local.core.records import Model
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.platforms import RequestSettings


@pytest.fixture
def endpoints(tmp_path):
    store = Store(tmp_path / "store")
    made = Endpoints(store, ProcessRuntime(store, tmp_path / "containers"))
    yield made
    made.stop_all()
    store.close()
    left = [
        process
        for process in psutil.process_iter(["cwd", "status"])
        if str(tmp_path / "containers") in str(process.info["cwd"])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    psutil.wait_procs(left, timeout=5)
    assert not [process for process in left if process.is_running()]
    assert not list(tmp_path.glob("containers/*"))


def container_spec(
    endpoints, answer: object, init: str = "pass", run: str = "", **more
) -> ContainerSpec:
    store, path = endpoints.store, f"o/c{id(answer)}-{answer}/score.py"
    run = run or f"return {answer!r}"
    script = f"import os, time\ndef init(): {init}\ndef run(raw): {run}\n"
    store.write(path, [script.encode()])
    return ContainerSpec("score.py", (Upload(path, "score.py"),), **more)


def deploy(endpoints: Endpoints, name: str, answer: object, init="pass", overwrite=False, **more):
    wanted = DeploymentSpec(container_spec(endpoints, answer, init, **more))

    def create(present: EndpointSpec | None) -> EndpointSpec:
        if present and not overwrite:
            raise Conflict("service", f"There is a service {name} already.")
        spec = present or EndpointSpec(traffic={name: 100})
        return dataclasses.replace(spec, deployments={name: wanted})

    return endpoints.put("service", name, create)


def tag(endpoints: Endpoints, name: str, **tags: str):
    return endpoints.change("service", name, lambda spec: dataclasses.replace(spec, tags=tags))


def ended(operation, seconds: float = 60) -> str:
    operation.wait(seconds)
    return operation.state


def ask(endpoint: Endpoint, seconds: float = 10, **headers: str) -> requests.Response:
    return requests.post(f"{endpoint.url}/score", "{}", headers=headers, timeout=seconds)


def answer_of(endpoints: Endpoints, name: str) -> object:
    return ask(endpoints.get("service", name)).json()


def test_endpoint_is_deployed_changed_and_deleted(endpoints):
    operation = deploy(endpoints, "a", 1)
    endpoint = endpoints.get("service", "a")
    assert (ended(operation), endpoint.state, answer_of(endpoints, "a")) == (
        "Succeeded",
        "Healthy",
        1,
    )
    with pytest.raises(Conflict):
        deploy(endpoints, "a", 2)
    with pytest.raises(NotFound, match="endpoint a"):
        endpoints.change("endpoint", "a", lambda spec: spec)  # another kind has names of its own
    assert endpoints.all("endpoint") == []

    # A change of keys and tags counts at once, and needs no other container.
    closed = dataclasses.replace(endpoint.spec, authentication="key", primary_key="mine")
    operation = endpoints.change("service", "a", lambda spec: closed)
    assert operation.state == "Succeeded"
    assert [
        ask(endpoint).status_code,
        ask(endpoint, Authorization="Bearer mine").status_code,
        ask(endpoint, Authorization=f"Bearer {closed.secondary_key}").status_code,
    ] == [401, 200, 200]
    assert "mine" not in repr(closed)

    operation = endpoints.change("service", "a", lambda s: dataclasses.replace(s, deployments={}))
    assert ended(operation) == "Succeeded"
    assert (endpoint.deployments, endpoint.state) == ({}, "Unhealthy")
    endpoints.delete("service", "a")
    endpoints.delete("service", "a")
    with pytest.raises(requests.ConnectionError):
        ask(endpoint)


def test_concurrent_changes_are_applied_in_sequence(endpoints):
    endpoints.put("service", "a", lambda present: EndpointSpec())

    def add(number: int) -> None:
        def work(spec: EndpointSpec) -> EndpointSpec:
            return dataclasses.replace(spec, tags=spec.tags | {str(number): "x"})

        endpoints.change("service", "a", work)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert len(endpoints.get("service", "a").spec.tags) == 40


def test_warning_is_reported_once(endpoints):
    def warnings(**more) -> list[str]:
        operation = deploy(endpoints, "warned", 1, overwrite=True, **more)
        assert ended(operation) == "Succeeded"
        return [line for _, line in operation.log]

    assert warnings(warnings=("no network",)) == ["no network"]
    assert warnings(warnings=("no network",)) == []
    assert warnings(warnings=("no network", "no disk")) == ["no disk"]


def test_rejected_change_leaves_the_endpoint_unchanged(endpoints, monkeypatch):
    def reject(spec: EndpointSpec | None) -> EndpointSpec:
        raise Conflict("service", "not now")

    with pytest.raises(Conflict):
        endpoints.put("service", "a", reject)
    monkeypatch.setattr(endpoints.runtime, "sockets", endpoints.runtime.sockets / "nowhere")
    with pytest.raises(OSError, match="No such file"):
        deploy(endpoints, "a", 1)
    assert endpoints.all() == []


def test_operation_ends_after_an_unexpected_error(endpoints, monkeypatch):
    def fail(listener: object) -> None:
        raise OSError("no process is left")

    monkeypatch.setattr("mnist_deploy.local.core.ingress.RouterProcess", fail)
    made = {name: DeploymentSpec(container_spec(endpoints, name)) for name in ("blue", "green")}
    spec = EndpointSpec(deployments=made, traffic={"blue": 50, "green": 50})
    operation = endpoints.put("endpoint", "a", lambda present: spec)
    assert ended(operation, 20) == "Failed"
    assert "no process is left" in str(operation.error)
    states = [each.state for each in endpoints.get("endpoint", "a").deployments.values()]
    assert states == ["Healthy", "Healthy"]


def test_missing_model_fails_the_deployment_and_requested_model_counts_as_used(endpoints):
    model = Model("m", 1, ("o/c/gone",), "")
    operation = deploy(endpoints, "a", 1, models=(model,))
    assert endpoints.using("m:1") == ["a"]
    assert (ended(operation), operation.error.kind) == ("Failed", "model")
    assert endpoints.get("service", "a").state == "Failed"


@pytest.mark.parametrize(
    ("kind", "compute", "status"),
    [("service", "", 503), ("service", "cluster", 503), ("endpoint", "", 502),
     ("endpoint", "cluster", 502)],
)  # fmt: skip
def test_service_that_starts_for_the_first_time_answers_with_the_reason(
    endpoints, tmp_path, kind, compute, status
):
    gate = tmp_path / "gate"
    wait = f"any(time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(gate)!r}), True))"
    wanted = DeploymentSpec(container_spec(endpoints, 1, wait))
    spec = EndpointSpec({"a": wanted}, {"a": 100}, compute=compute)
    operation = endpoints.put(kind, "a", lambda _: spec)
    endpoint = endpoints.get(kind, "a")
    for _ in range(2):
        answer = ask(endpoint)
        assert answer.status_code == status
        assert answer.json()["message"].startswith("a is starting: init() of its script has not")
    gate.touch()
    assert ended(operation) == "Succeeded"
    assert ask(endpoint).json() == 1


def test_service_whose_init_raised_answers_with_the_reason(endpoints):
    operation = deploy(endpoints, "a", 1, init="1 / 0")
    endpoint = endpoints.get("service", "a")
    assert ended(operation) == "Failed"
    answer = ask(endpoint)
    assert answer.status_code == 503
    assert "init() raised" in answer.json()["message"]
    ended(deploy(endpoints, "a", 2, overwrite=True))
    assert answer_of(endpoints, "a") == 2


@pytest.mark.processes
def test_crashing_endpoint_answers_503_at_once(endpoints):
    ended(deploy(endpoints, "a", 1, run="os.killpg(0, 9)"))
    endpoint = endpoints.get("service", "a")
    died = 0
    while (answer := post(endpoint)) is None:
        died += 1
        assert died < 10
    assert answer.status_code == 503
    assert "ended 3 times in a minute" in answer.json()["message"]


def post(endpoint: Endpoint) -> requests.Response | None:
    try:
        return ask(endpoint)
    except requests.ConnectionError:
        return None


def test_endpoint_that_is_deleted_during_its_start_stops_at_once(endpoints):
    operation = deploy(endpoints, "a", 1, init="time.sleep(600)")
    endpoints.delete("service", "a")
    assert ended(operation, 5) == "Failed"
    assert "deleted" in str(operation.error)
    assert endpoints.find("service", "a") is None


@contextlib.contextmanager
def load(endpoint: Endpoint, threads: int = 4):
    """Send requests continuously; count the answers by their content.

    The first thread, and each second after it, opens a connection for each request; the others
    keep theirs as long as they may.
    """
    answers, stop = Counter(), threading.Event()

    def work(number: int) -> None:
        with requests.Session() as kept:
            while not stop.is_set():
                post = kept.post if number % 2 else requests.post
                try:
                    answer = post(f"{endpoint.url}/score", "{}", timeout=60)
                    answers[answer.json() if answer.ok else answer.text] += 1
                except requests.RequestException as error:
                    answers[repr(error)] += 1

    with ThreadPoolExecutor(threads) as pool:
        for number in range(threads):
            pool.submit(work, number)
        try:
            yield answers
        finally:
            stop.set()


def routers() -> list[psutil.Process]:
    ours = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in ours if "mnist_deploy.local.core.router" in each.cmdline()]


def more(answers: Counter, count: int = 50) -> None:
    wanted = answers.total() + count
    wait_until(lambda: answers.total() >= wanted, 60)


@pytest.mark.processes
def test_scaling_replicas_under_load_loses_no_request(endpoints):
    wanted = DeploymentSpec(container_spec(endpoints, 1, run="return os.getpid()"))
    scale = {n: dataclasses.replace(wanted, replicas=n) for n in (1, 2, 3)}
    created = EndpointSpec({"a": wanted}, {"a": 100})
    assert ended(endpoints.put("service", "a", lambda present: created)) == "Succeeded"
    endpoint = endpoints.get("service", "a")
    with load(endpoint) as answers:
        for replicas in (1, 2, 3, 1):
            operation = endpoints.change(
                "service",
                "a",
                lambda spec, n=replicas: dataclasses.replace(spec, deployments={"a": scale[n]}),
            )
            assert ended(operation) == "Succeeded"
            more(answers)
    assert answers.total() >= 200
    assert all(isinstance(pid, int) for pid in answers), answers
    assert len(answers) == 3


@pytest.mark.processes
def test_killed_replica_loses_only_its_requests_in_flight(endpoints):
    wanted = DeploymentSpec(container_spec(endpoints, 1, run="return os.getpid()"), 2)
    created = EndpointSpec({"a": wanted}, {"a": 100})
    assert ended(endpoints.put("service", "a", lambda present: created)) == "Succeeded"
    endpoint = endpoints.get("service", "a")
    with load(endpoint, threads=1) as answers:
        more(answers)
        psutil.Process(next(iter(answers))).kill()
        more(answers)
    assert sum(n for answer, n in answers.items() if not isinstance(answer, int)) <= 1


@pytest.mark.processes
def test_changing_traffic_under_load_loses_no_request(endpoints):
    many = RequestSettings(max_concurrent=100)
    blue = DeploymentSpec(container_spec(endpoints, "blue"), requests=many)
    green = DeploymentSpec(container_spec(endpoints, "green"), requests=many)
    created = EndpointSpec({"blue": blue}, {"blue": 100}, authentication="none")
    assert ended(endpoints.put("endpoint", "a", lambda present: created)) == "Succeeded"
    endpoint = endpoints.get("endpoint", "a")

    def change(**fields) -> None:
        wanted = dataclasses.replace(endpoint.spec, **fields)
        assert ended(endpoints.change("endpoint", "a", lambda spec: wanted)) == "Succeeded"

    with load(endpoint) as answers:
        more(answers)
        change(deployments={"blue": blue, "green": green})
        more(answers)
        assert set(answers) == {"blue"}
        header = {"azureml-model-deployment": "green"}
        assert ask(endpoint, **header).json() == "green"
        change(traffic={"blue": 50, "green": 50})
        wait_until(lambda: answers["green"])
        change(authentication="key")
        wait_until(lambda: any("requires a key" in str(each) for each in answers))
        change(authentication="none")
        change(traffic={"green": 100})
        change(deployments={"green": green})
        green_before, blue_before = answers["green"], answers["blue"]
        more(answers)
    assert (answers["blue"], answers["green"] > green_before) == (blue_before, True)
    rejected = [each for each in answers if each not in ("blue", "green")]
    assert all("requires a key" in each for each in rejected), answers


@pytest.mark.processes
def test_kept_connection_reaches_the_router_after_the_change(endpoints):
    blue, green = (DeploymentSpec(container_spec(endpoints, name)) for name in ("blue", "green"))
    created = EndpointSpec({"blue": blue}, {"blue": 100})
    assert ended(endpoints.put("endpoint", "a", lambda present: created)) == "Succeeded"
    url = f"{endpoints.get('endpoint', 'a').url}/score"
    with requests.Session() as kept:
        assert kept.post(url, "{}", timeout=10).json() == "blue"
        wanted = dataclasses.replace(created, deployments={"blue": blue, "green": green})
        assert ended(endpoints.change("endpoint", "a", lambda spec: wanted)) == "Succeeded"
        header = {"azureml-model-deployment": "green"}
        assert kept.post(url, "{}", headers=header, timeout=10).json() == "green"


@pytest.mark.processes
def test_killed_router_is_restarted_and_failed_deployment_reports_its_reason(endpoints):
    good = DeploymentSpec(container_spec(endpoints, "good"))
    bad = DeploymentSpec(container_spec(endpoints, "bad", init="1 / 0"))
    created = EndpointSpec({"good": good, "bad": bad}, {"good": 100})
    assert ended(endpoints.put("endpoint", "a", lambda present: created)) == "Failed"
    endpoint = endpoints.get("endpoint", "a")
    rejected = ask(endpoint, **{"azureml-model-deployment": "bad"})
    assert (rejected.status_code, "init() raised" in rejected.json()["message"]) == (502, True)
    [router] = routers()
    router.kill()
    assert ask(endpoint).json() == "good"


@pytest.mark.processes
def test_last_of_many_overwrites_is_served_and_every_operation_ends(endpoints):
    first = deploy(endpoints, "a", 0, init="time.sleep(0.5)")
    address = endpoints.get("service", "a").url
    tagged = tag(endpoints, "a", new="tag")  # while it is deployed
    assert endpoints.get("service", "a").state == "Transitioning"
    assert ended(tagged) == "Succeeded"
    operations = [first] + [deploy(endpoints, "a", n, overwrite=True) for n in range(1, 6)]
    states = [ended(operation) for operation in operations]
    assert states[-1] == "Succeeded"
    superseded = {(o.state, o.error.kind) for o in operations[:-1] if o.error is not None}
    assert superseded == {("Failed", "superseded")}
    assert answer_of(endpoints, "a") == 5
    endpoint = endpoints.get("service", "a")
    assert (endpoint.url, endpoint.state, endpoint.spec.tags) == (
        address,
        "Healthy",
        {"new": "tag"},
    )


def is_rejected_by_fallback(answer: requests.Response) -> bool:
    """Whether the fallback responder had accepted the connection, also just before it was removed.

    No other process can read a connection that it has accepted: a request that arrives there after
    a container began to serve gets "The service has just changed".
    """
    reasons = ("is starting", "has just changed")
    return answer.status_code == 503 and any(each in answer.text for each in reasons)


@pytest.mark.processes
def test_concurrent_creates_changes_and_deletes_do_not_mix_services(endpoints):
    """Threads create, overwrite, change, call and delete two services concurrently."""
    wrong, operations = [], []
    names = ("a", "b")

    def work(number: int) -> None:
        for turn in range(4):
            name = names[(number + turn) % 2]
            try:
                match (number + turn) % 4:
                    case 0 | 1:
                        operations.append(deploy(endpoints, name, name, overwrite=True))
                    case 2:
                        operations.append(tag(endpoints, name, turn=str(turn)))
                    case 3 if turn == 2:
                        endpoints.delete("service", name)
                answer = ask(endpoints.get("service", name), seconds=60)
                if answer.json() != name and not is_rejected_by_fallback(answer):
                    wrong.append((name, answer.text))
            except (Fault, requests.RequestException):
                continue  # it was deleted or exchanged just then

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(ended(operation) in ("Succeeded", "Failed") for operation in operations)
    for name in names:
        assert ended(deploy(endpoints, name, name, overwrite=True)) == "Succeeded"
        assert answer_of(endpoints, name) == name


def test_token_is_issued_again_while_most_of_its_time_is_left(endpoints):
    wanted = EndpointSpec(authentication="token")
    endpoints.put("service", "tokens", lambda present: wanted)
    endpoint = endpoints.get("service", "tokens")
    token, expiry = endpoint.issue_token(600)
    assert {endpoint.issue_token(600) for _ in range(1000)} == {(token, expiry)}
    assert endpoint.issue_token(6000)[0] != token
    assert len(endpoint.routes.access.tokens) == 2
    assert token not in str(endpoint.routes)
