"""Reconciliation of a deployment with its spec; the containers start when the test allows it."""

from __future__ import annotations

import threading

import pytest
from polling import wait_until

from mnist_deploy.local.core.container_spec import ContainerSpec
from mnist_deploy.local.core.deployments import Deployment, DeploymentSpec
from mnist_deploy.local.core.faults import Failed, NotFound
from mnist_deploy.local.core.runtime import AccessPolicy
from mnist_deploy.local.core.telemetry import BUCKETS


class Container:
    """Starts at once, or when `gate` opens; fails where the script is ``broken``."""

    def __init__(self, container_spec: ContainerSpec, gate: threading.Event | None) -> None:
        self.script, self.gate = container_spec.script, gate
        self.state = "Transitioning"
        self.stopped = threading.Event()
        self.on_stop = lambda: None

    def start(self) -> str | None:
        wait_until(lambda: self.gate is None or self.gate.is_set() or self.stopped.is_set())
        problem = "it was stopped" if self.stopped.is_set() else None
        if self.script == "broken":
            problem = "init() raised"
        self.state = "Failed" if problem else "Healthy"
        return problem

    def stop(self, grace: float = 0) -> None:
        self.stopped.set()
        self.on_stop()

    def configure(self, access: AccessPolicy) -> None:
        self.access = access

    @property
    def requests(self) -> dict:
        return {"requests": 2, "failed": 1, "histogram": [2] + [0] * len(BUCKETS)}

    def log_tail(self, lines: int) -> str:
        return f"log of {self.script}"


@pytest.fixture
def made() -> list[Container]:
    """Every container that was built, in order."""
    return []


@pytest.fixture
def deployment(made):
    def build(container_spec: ContainerSpec) -> Container:
        if container_spec.script == "missing":
            raise NotFound("model", "digits:1")
        if container_spec.script == "full disk":
            raise OSError("no space left")
        made.append(Container(container_spec, gates.get(container_spec.script)))
        return made[-1]

    gates: dict[str, threading.Event] = {}
    closed = threading.Event()
    built = Deployment("svc", "socket", build, closed.set)
    built.gates = gates
    yield built
    built.end()
    assert closed.is_set()


def reconcile(deployment: Deployment, container_spec: ContainerSpec, replicas: int = 1) -> None:
    change = deployment.accept(DeploymentSpec(container_spec, replicas))
    assert change
    deployment.reconcile(change, container_spec)


def reconcile_in_thread(deployment: Deployment, container_spec: ContainerSpec) -> list[str]:
    """Reconcile in a thread; the returned list holds the outcome once the thread has ended."""
    outcome: list[str] = []
    change = deployment.accept(DeploymentSpec(container_spec))
    assert change

    def run() -> None:
        try:
            deployment.reconcile(change, container_spec)
            outcome.append("Succeeded")
        except Failed as failed:
            outcome.append(failed.kind)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def running(made: list[Container]) -> list[str]:
    return [c.script for c in made if c.state == "Healthy" and not c.stopped.is_set()]


def test_new_containers_take_the_place_of_old_ones(deployment, made):
    reconcile(deployment, ContainerSpec("one", ()), replicas=2)
    assert (deployment.state, running(made)) == ("Healthy", ["one", "one"])
    reconcile(deployment, ContainerSpec("two", ()))
    assert (deployment.state, running(made)) == ("Healthy", ["two"])
    assert (deployment.requests["requests"], deployment.requests["failed"]) == (6, 3)


def test_requests_of_a_container_are_counted_while_it_stops(deployment, made):
    counts = []
    reconcile(deployment, ContainerSpec("one", ()))
    made[0].on_stop = lambda: counts.append(deployment.requests["requests"])
    reconcile(deployment, ContainerSpec("two", ()))
    assert counts == [4]  # two of each container
    assert deployment.requests["requests"] == 4
    made[1].on_stop = made[0].on_stop
    reconcile(deployment, ContainerSpec("two", ()), replicas=0)
    assert [*counts, deployment.requests["requests"]] == [4, 4, 4]


def test_old_containers_serve_until_the_new_ones_are_ready(deployment, made):
    deployment.apply_access_policy(AccessPolicy(("key",)))
    reconcile(deployment, ContainerSpec("one", ()))
    assert made[0].access == AccessPolicy(("key",))
    deployment.gates["slow"] = threading.Event()
    outcome = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: len(made) == 2)
    deployment.apply_access_policy(AccessPolicy(("other",)))
    assert (running(made), deployment.state) == (["one"], "Transitioning")
    assert (made[0].access.keys, made[1].access.public) == (("other",), False)
    deployment.gates["slow"].set()
    wait_until(lambda: outcome)
    assert (outcome, running(made)) == (["Succeeded"], ["slow"])
    assert made[1].access == AccessPolicy(("other",))


def test_deployment_names_its_problem_while_it_starts_for_the_first_time(deployment, made):
    deployment.gates["slow"] = threading.Event()
    outcome = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    assert deployment.problem == "svc is starting: init() of its script has not returned yet."
    deployment.gates["slow"].set()
    wait_until(lambda: outcome)
    assert deployment.problem is None
    deployment.gates["slow"].clear()
    outcome = reconcile_in_thread(deployment, ContainerSpec("slow", (), generation=1))
    assert deployment.problem is None  # the container before it answers
    deployment.gates["slow"].set()
    wait_until(lambda: outcome)


def test_replicas_are_added_removed_and_numbered_in_the_log(deployment, made):
    container_spec = ContainerSpec("one", ())
    reconcile(deployment, container_spec)
    first = made[0]
    reconcile(deployment, container_spec, replicas=3)
    assert deployment.containers == made == [first, *made[1:]]
    log = deployment.log_tail(100).splitlines()
    assert log[::2] == [f"--- replica {number} of 3, Healthy ---" for number in (1, 2, 3)]
    reconcile(deployment, container_spec, replicas=1)
    assert deployment.containers == [first]
    assert running(made) == ["one"]
    assert deployment.log_tail(100) == "log of one"


def test_change_without_effect_on_containers_needs_no_reconciliation(deployment):
    container_spec = ContainerSpec("one", ())
    reconcile(deployment, container_spec)
    assert not deployment.accept(DeploymentSpec(container_spec, tags={"a": "b"}))
    assert not deployment.accept(DeploymentSpec(ContainerSpec("one", (), warnings=("no disk",))))
    assert deployment.accept(DeploymentSpec(ContainerSpec("one", (), generation=1)))
    assert deployment.accept(DeploymentSpec(ContainerSpec("one", (), cpu_cores=2)))


@pytest.mark.parametrize(
    ("script", "reason"),
    [("broken", "svc did not start: init"), ("missing", "digits:1"), ("full disk", "no space")],
)
def test_container_that_cannot_start_fails_the_deployment_with_its_reason(
    deployment, made, script, reason
):
    reconcile(deployment, ContainerSpec("one", ()))
    with pytest.raises((Failed, NotFound), match=reason):
        reconcile(deployment, ContainerSpec(script, ()), replicas=2)
    assert (deployment.state, running(made)) == ("Failed", [])
    assert reason in str(deployment.error)
    reconcile(deployment, ContainerSpec("two", ()))
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_replica_that_cannot_start_does_not_affect_the_others(deployment, made):
    container_spec = ContainerSpec("one", ())
    reconcile(deployment, container_spec)
    made[0].script, container_spec_script = "one", container_spec.script
    object.__setattr__(
        container_spec, "script", "broken"
    )  # as a script does whose file was deleted meanwhile
    with pytest.raises(Failed):
        reconcile(deployment, container_spec, replicas=3)
    object.__setattr__(container_spec, "script", container_spec_script)
    assert (deployment.state, running(made)) == ("Healthy", ["one"])


def test_later_container_spec_supersedes_one_that_is_starting(deployment, made):
    for script in ("slow", "slower"):
        deployment.gates[script] = threading.Event()
    first = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    second = reconcile_in_thread(deployment, ContainerSpec("slower", ()))
    wait_until(lambda: first)
    assert (first, second, deployment.state) == (["superseded"], [], "Transitioning")
    third = reconcile_in_thread(deployment, ContainerSpec("one", ()))
    wait_until(lambda: second and third)
    assert (second, third, running(made)) == (["superseded"], ["Succeeded"], ["one"])
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_spec_is_started_again_after_its_first_start_was_superseded(deployment, made):
    for script in ("slow", "slower"):
        deployment.gates[script] = threading.Event()
    first = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    second = reconcile_in_thread(deployment, ContainerSpec("slower", ()))
    wait_until(lambda: made[0].stopped.is_set())
    third = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    deployment.gates["slow"].set()
    wait_until(lambda: first and second and third)
    assert (second, third, running(made)) == (["superseded"], ["Succeeded"], ["slow"])
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_start_is_superseded_by_a_deletion_and_no_container_remains(deployment, made):
    deployment.gates["slow"] = threading.Event()
    outcome = reconcile_in_thread(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    deployment.end()
    wait_until(lambda: outcome)
    assert outcome == ["superseded"]
    with pytest.raises(Failed, match="deleted"):
        reconcile(deployment, ContainerSpec("one", ()))
    assert running(made) == []
