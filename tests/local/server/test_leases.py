"""Who keeps the control plane alive, and for how long."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from weights_service import until

from mnist_deploy.local.server.leases import Leases, is_alive


def sleeper() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def test_a_lease_ends_with_its_process_even_as_a_zombie():
    leases, process = Leases(), sleeper()
    assert leases.add(process.pid)
    assert not leases.close_if_unused()
    process.kill()
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert not is_alive(psutil.Process(process.pid))
    assert leases.close_if_unused()
    process.wait()
    process.stdin.close()


def test_nobody_joins_who_is_gone_or_too_late():
    leases, process = Leases(), sleeper()
    process.kill()
    process.wait()
    process.stdin.close()
    assert not leases.add(process.pid)
    leases = Leases()
    leases.close()
    assert not leases.add(psutil.Process().pid)


def test_leases_may_be_closed_while_they_are_looked_at():
    leases = Leases()
    leases.add(psutil.Process().pid)
    with leases._lock:  # as a signal may arrive
        leases.close()
    assert leases.close_if_unused()


def test_a_number_that_was_given_to_another_process_is_not_the_holder():
    process = psutil.Process()
    impostor = psutil.Process(process.pid)
    impostor._create_time = 1.0
    impostor._ident = (process.pid, 1.0)
    assert is_alive(process)
    assert not is_alive(impostor)


@pytest.mark.parametrize("pid", [True, 1, 0, -1, 2**31, "2", None, 1.5])
def test_a_lease_is_for_a_process(call, pid):
    answer = call("POST", "/leases", json={"pid": pid})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")
