"""Client registrations: which processes keep the control plane running, and until when."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import psutil
import pytest
from generated_requests import app_to_try
from polling import wait_until

from mnist_deploy.local.rest import state_of
from mnist_deploy.local.server.client_registrations import ClientRegistrations, is_alive


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_registration_ends_with_its_process_and_ended_process_is_rejected(sleeper):
    registrations, process = ClientRegistrations(), psutil.Process(sleeper.pid)
    assert registrations.add(sleeper.pid)
    assert not registrations.close_if_unused()
    sleeper.kill()
    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert not is_alive(process)
    assert registrations.close_if_unused()
    sleeper.wait()
    assert not ClientRegistrations().add(sleeper.pid)


def test_registrations_can_be_ended_during_a_check_and_new_clients_are_then_rejected():
    registrations = ClientRegistrations()
    registrations.add(psutil.Process().pid)
    with registrations._lock:  # as a signal may arrive
        registrations.close()
    assert registrations.close_if_unused()
    assert not registrations.add(psutil.Process().pid)


def test_reused_process_id_is_not_the_registered_client():
    process = psutil.Process()
    impostor = psutil.Process(process.pid)
    impostor._create_time = 1.0
    impostor._ident = (process.pid, 1.0)
    assert is_alive(process)
    assert not is_alive(impostor)


def test_registration_lasts_while_file_descriptors_are_exhausted():
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
def test_registration_without_a_valid_process_id_is_rejected(call, pid):
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
