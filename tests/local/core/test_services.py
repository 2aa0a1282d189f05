"""Services that come, change and go at once: no lost one, no mixed one, no process left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from mnist_deploy.local.core.services import Services
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.v1.refusal import Refusal

RESOURCES = {"cpu": 1, "memoryInGB": 1}


@pytest.fixture
def services(tmp_path):
    store = Store(tmp_path / "store")
    made = Services(store, tmp_path / "containers")
    made.tests_store = store
    yield made
    made.stop_all()
    store.close()
    left = [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if str(tmp_path) in str(process.info["cmdline"])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    psutil.wait_procs(left, timeout=5)
    assert not [process for process in left if process.is_running()]
    assert not list((tmp_path / "containers").iterdir())


def recipe(services: Services, answer: object, init: str = "pass") -> dict:
    store = services.tests_store
    script = f"import time\ndef init(): {init}\ndef run(raw): return {answer!r}\n"
    store.write(f"o/c{id(answer)}-{answer}/score.py", [script.encode()])
    url = f"aml://artifact/o/c{id(answer)}-{answer}/score.py"
    return {"driverProgram": "score.py", "assets": [{"id": "score.py", "url": url}]}


def request(name: str, **more) -> dict:
    return {"name": name, "containerResourceRequirements": RESOURCES, **more}


def deploy(services: Services, name: str, answer: object, init: str = "pass", **more):
    return services.create(request(name, **more), recipe(services, answer, init), [])


def ended(operation, seconds: float = 60) -> str:
    operation.wait(seconds)
    return operation.state


def answer_of(services: Services, name: str) -> object:
    return requests.post(f"{services.find(name).url}/score", "{}", timeout=10).json()


def test_a_name_is_given_once(services):
    assert ended(deploy(services, "a", 1)) == "Succeeded"
    with pytest.raises(Refusal, match="overwrite=True"):
        deploy(services, "a", 2)
    assert answer_of(services, "a") == 1


def test_of_many_that_want_a_name_at_once_one_gets_it(services):
    def attempt(number: int):
        try:
            return number, deploy(services, "a", number)
        except Refusal:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = list(filter(None, pool.map(attempt, range(8))))
    [(number, operation)] = winners
    assert ended(operation) == "Succeeded"
    assert answer_of(services, "a") == number


def test_of_many_overwrites_the_last_wins_and_all_end(services):
    first = deploy(services, "a", 0)
    address = services.find("a").url
    operations = [first] + [deploy(services, "a", n, overwrite=True) for n in range(1, 6)]
    states = [ended(operation) for operation in operations]
    assert states[-1] == "Succeeded"
    assert set(states[:-1]) == {"Failed"}
    assert all(op.error["code"] == "Superseded" for op in operations[:-1])
    assert answer_of(services, "a") == 5
    service = services.find("a")
    assert (service.url, service.state, service.error) == (address, "Healthy", None)


def test_labels_may_change_while_it_is_deployed(services):
    operation = deploy(services, "a", 1, init="time.sleep(0.5)")
    service = services.find("a")
    change = services.update(service, request("a", kvTags={"new": "tag"}), None, [])
    assert change.state == "Succeeded"
    assert service.state == "Transitioning"
    assert ended(operation) == "Succeeded"
    assert (service.state, service.request["kvTags"]) == ("Healthy", {"new": "tag"})


def test_one_that_is_deleted_while_it_starts_ends_at_once(services):
    operation = deploy(services, "a", 1, init="time.sleep(600)")
    services.delete("a")
    assert ended(operation, 5) == "Failed"
    assert "deleted" in operation.error["message"]
    assert services.find("a") is None
    services.delete("a")


def test_one_that_was_deleted_can_neither_be_changed_nor_come_back(services):
    operation = deploy(services, "a", 1)
    waiting = deploy(services, "a", 2, overwrite=True)
    service = services.find("a")
    services.delete("a")
    assert [ended(operation), ended(waiting)] == ["Failed", "Failed"]
    with pytest.raises(Refusal, match="deleted"):
        services.update(service, request("a"), recipe(services, 3), [])
    with pytest.raises(requests.ConnectionError):
        requests.get(service.url, timeout=5)


def test_a_model_is_in_use_from_the_moment_of_the_request(services):
    model = {"id": "m:1", "name": "m", "version": 1, "url": "aml://asset/gone"}
    operation = services.create(request("a"), recipe(services, 1), [model])
    assert services.using("m:1") == ["a"]
    assert ended(operation) == "Failed"
    assert operation.error["code"] == "ModelNotFound"
    assert services.find("a").state == "Failed"


def test_everything_at_once(services):
    """Threads create, overwrite, change, ask and delete two services; none may be mixed up."""
    wrong, operations = [], []
    names = ("a", "b")

    def work(number: int) -> None:
        for turn in range(4):
            name = names[(number + turn) % 2]
            try:
                match (number + turn) % 4:
                    case 0 | 1:
                        operations.append(deploy(services, name, name, overwrite=True))
                    case 2 if service := services.find(name):
                        operations.append(services.update(service, request(name), None, []))
                    case 3 if turn == 2:
                        services.delete(name)
                if service := services.find(name):
                    answer = requests.post(f"{service.url}/score", "{}", timeout=60)
                    if answer.json() != name:
                        wrong.append((name, answer.text))
            except (Refusal, requests.RequestException):
                continue  # it was deleted or exchanged just then

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(ended(operation) in ("Succeeded", "Failed") for operation in operations)
    for name in names:
        assert ended(deploy(services, name, name, overwrite=True)) == "Succeeded"
        assert answer_of(services, name) == name
