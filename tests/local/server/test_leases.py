"""Who keeps the control plane alive, and for how long."""

from __future__ import annotations

import resource
import subprocess
import sys

import psutil
import pytest
from weights_service import until

from mnist_deploy.local.server.leases import Leases, is_alive


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_lease_ends_with_its_process_even_as_a_zombie_and_who_is_gone_gets_none(sleeper):
    leases, process = Leases(), psutil.Process(sleeper.pid)
    assert leases.add(sleeper.pid)
    assert not leases.close_if_unused()
    sleeper.kill()
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert not is_alive(process)
    assert leases.close_if_unused()
    sleeper.wait()
    assert not Leases().add(sleeper.pid)


def test_leases_may_be_closed_while_they_are_looked_at_and_then_nobody_joins():
    leases = Leases()
    leases.add(psutil.Process().pid)
    with leases._lock:  # as a signal may arrive
        leases.close()
    assert leases.close_if_unused()
    assert not leases.add(psutil.Process().pid)


def test_a_number_that_was_given_to_another_process_is_not_the_holder():
    process = psutil.Process()
    impostor = psutil.Process(process.pid)
    impostor._create_time = 1.0
    impostor._ident = (process.pid, 1.0)
    assert is_alive(process)
    assert not is_alive(impostor)


def test_a_lease_lasts_while_there_is_no_file_descriptor_to_look_with():
    leases = Leases()
    leases.add(psutil.Process().pid)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    try:
        is_over = leases.close_if_unused()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert not is_over


@pytest.mark.parametrize("pid", [True, 1, 0, -1, 2**31, "2", None, 1.5])
def test_a_lease_is_for_a_process(call, pid):
    answer = call("POST", "/leases", json={"pid": pid})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")
