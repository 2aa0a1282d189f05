"""How a deployment follows what is wanted of it, with containers that start when they are told."""

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

    def start(self) -> str | None:
        wait_until(lambda: self.gate is None or self.gate.is_set() or self.stopped.is_set())
        problem = "it was stopped" if self.stopped.is_set() else None
        if self.script == "broken":
            problem = "init() raised"
        self.state = "Failed" if problem else "Healthy"
        return problem

    def stop(self, grace: float = 0) -> None:
        self.stopped.set()

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


def follow(deployment: Deployment, container_spec: ContainerSpec, replicas: int = 1) -> None:
    change = deployment.accept(DeploymentSpec(container_spec, replicas))
    assert change
    deployment.reconcile(change, container_spec)


def in_background(deployment: Deployment, container_spec: ContainerSpec) -> list[str]:
    """Follow in a thread; what became of it, once it has ended."""
    outcome: list[str] = []
    change = deployment.accept(DeploymentSpec(container_spec))
    assert change

    def work() -> None:
        try:
            deployment.reconcile(change, container_spec)
            outcome.append("Succeeded")
        except Failed as failed:
            outcome.append(failed.kind)

    threading.Thread(target=work, daemon=True).start()
    return outcome


def running(made: list[Container]) -> list[str]:
    return [c.script for c in made if c.state == "Healthy" and not c.stopped.is_set()]


def test_new_containers_take_the_place_of_old_ones(deployment, made):
    follow(deployment, ContainerSpec("one", ()), replicas=2)
    assert (deployment.state, running(made)) == ("Healthy", ["one", "one"])
    follow(deployment, ContainerSpec("two", ()))
    assert (deployment.state, running(made)) == ("Healthy", ["two"])
    assert (deployment.requests["requests"], deployment.requests["failed"]) == (6, 3)


def test_the_old_ones_serve_until_the_new_ones_can(deployment, made):
    deployment.apply_access_policy(AccessPolicy(("key",)))
    follow(deployment, ContainerSpec("one", ()))
    assert made[0].access == AccessPolicy(("key",))
    deployment.gates["slow"] = threading.Event()
    outcome = in_background(deployment, ContainerSpec("slow", ()))
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
    outcome = in_background(deployment, ContainerSpec("slow", ()))
    assert deployment.problem == "svc is starting: init() of its script has not returned yet."
    deployment.gates["slow"].set()
    wait_until(lambda: outcome)
    assert deployment.problem is None
    deployment.gates["slow"].clear()
    outcome = in_background(deployment, ContainerSpec("slow", (), generation=1))
    assert deployment.problem is None  # the container before it answers
    deployment.gates["slow"].set()
    wait_until(lambda: outcome)


def test_replicas_come_and_go_and_are_told_apart_in_the_log(deployment, made):
    container_spec = ContainerSpec("one", ())
    follow(deployment, container_spec)
    first = made[0]
    follow(deployment, container_spec, replicas=3)
    assert deployment.containers == made == [first, *made[1:]]
    log = deployment.log_tail(100).splitlines()
    assert log[::2] == [f"--- replica {number} of 3, Healthy ---" for number in (1, 2, 3)]
    follow(deployment, container_spec, replicas=1)
    assert deployment.containers == [first]
    assert running(made) == ["one"]
    assert deployment.log_tail(100) == "log of one"


def test_what_changes_no_container_needs_no_following(deployment):
    container_spec = ContainerSpec("one", ())
    follow(deployment, container_spec)
    assert not deployment.accept(DeploymentSpec(container_spec, tags={"a": "b"}))
    assert not deployment.accept(DeploymentSpec(ContainerSpec("one", (), warnings=("no disk",))))
    assert deployment.accept(DeploymentSpec(ContainerSpec("one", (), generation=1)))
    assert deployment.accept(DeploymentSpec(ContainerSpec("one", (), cpu_cores=2)))


@pytest.mark.parametrize(
    ("script", "told"),
    [("broken", "svc did not start: init"), ("missing", "digits:1"), ("full disk", "no space")],
)
def test_one_that_cannot_start_has_failed_and_says_why(deployment, made, script, told):
    follow(deployment, ContainerSpec("one", ()))
    with pytest.raises((Failed, NotFound), match=told):
        follow(deployment, ContainerSpec(script, ()), replicas=2)
    assert (deployment.state, running(made)) == ("Failed", [])
    assert told in str(deployment.error)
    follow(deployment, ContainerSpec("two", ()))
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_replicas_that_cannot_start_leave_the_others_alone(deployment, made):
    container_spec = ContainerSpec("one", ())
    follow(deployment, container_spec)
    made[0].script, container_spec_script = "one", container_spec.script
    object.__setattr__(
        container_spec, "script", "broken"
    )  # as a script that needs what is gone by now
    with pytest.raises(Failed):
        follow(deployment, container_spec, replicas=3)
    object.__setattr__(container_spec, "script", container_spec_script)
    assert (deployment.state, running(made)) == ("Healthy", ["one"])


def test_a_later_container_spec_ends_what_an_earlier_one_has_begun(deployment, made):
    for script in ("slow", "slower"):
        deployment.gates[script] = threading.Event()
    first = in_background(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    second = in_background(deployment, ContainerSpec("slower", ()))
    wait_until(lambda: first)
    assert (first, second, deployment.state) == (["superseded"], [], "Transitioning")
    third = in_background(deployment, ContainerSpec("one", ()))
    wait_until(lambda: second and third)
    assert (second, third, running(made)) == (["superseded"], ["Succeeded"], ["one"])
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_spec_that_is_wanted_again_is_started_although_its_first_start_was_interrupted(
    deployment, made
):
    for script in ("slow", "slower"):
        deployment.gates[script] = threading.Event()
    first = in_background(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    second = in_background(deployment, ContainerSpec("slower", ()))
    wait_until(lambda: made[0].stopped.is_set())
    third = in_background(deployment, ContainerSpec("slow", ()))
    deployment.gates["slow"].set()
    wait_until(lambda: first and second and third)
    assert (second, third, running(made)) == (["superseded"], ["Succeeded"], ["slow"])
    assert (deployment.state, deployment.error) == ("Healthy", None)


def test_what_starts_while_it_is_deleted_gives_up_and_nothing_stays(deployment, made):
    deployment.gates["slow"] = threading.Event()
    outcome = in_background(deployment, ContainerSpec("slow", ()))
    wait_until(lambda: made)
    deployment.end()
    wait_until(lambda: outcome)
    assert outcome == ["superseded"]
    with pytest.raises(Failed, match="deleted"):
        follow(deployment, ContainerSpec("one", ()))
    assert running(made) == []
