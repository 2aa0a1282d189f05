"""Who keeps the control plane alive, and for how long."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import psutil
import pytest
from generated_requests import app_to_try
from weights_service import until

from mnist_deploy.local.rest import state_of
from mnist_deploy.local.server.client_registrations import ClientRegistrations, is_alive


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_lease_ends_with_its_process_even_as_a_zombie_and_who_is_gone_gets_none(sleeper):
    registrations, process = ClientRegistrations(), psutil.Process(sleeper.pid)
    assert registrations.add(sleeper.pid)
    assert not registrations.close_if_unused()
    sleeper.kill()
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert not is_alive(process)
    assert registrations.close_if_unused()
    sleeper.wait()
    assert not ClientRegistrations().add(sleeper.pid)


def test_leases_may_be_closed_while_they_are_looked_at_and_then_nobody_joins():
    registrations = ClientRegistrations()
    registrations.add(psutil.Process().pid)
    with registrations._lock:  # as a signal may arrive
        registrations.close()
    assert registrations.close_if_unused()
    assert not registrations.add(psutil.Process().pid)


def test_a_number_that_was_given_to_another_process_is_not_the_holder():
    process = psutil.Process()
    impostor = psutil.Process(process.pid)
    impostor._create_time = 1.0
    impostor._ident = (process.pid, 1.0)
    assert is_alive(process)
    assert not is_alive(impostor)


def test_a_lease_lasts_while_there_is_no_file_descriptor_to_look_with():
    registrations = ClientRegistrations()
    registrations.add(psutil.Process().pid)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    try:
        is_over = registrations.close_if_unused()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert not is_over


@pytest.mark.parametrize("pid", [True, 1, 0, -1, 2**31, "2", None, 1.5])
def test_a_lease_is_for_a_process(call, pid):
    answer = call("POST", "/clients", json={"pid": pid})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UserError")


def test_client_is_rejected_while_the_control_plane_stops(tmp_path):
    with app_to_try(tmp_path) as app:
        headers = {"Authorization": f"Bearer {state_of(app).token}"}
        client = app.test_client()
        for method, status in (("POST", 200), ("DELETE", 200), ("POST", 409)):
            answer = client.open("/clients", method=method, json={"pid": os.getpid()},
                                 headers=headers, base_url="https://127.0.0.1")  # fmt: skip
            assert answer.status_code == status
