"""What accepts at an endpoint's address, and the supervision of a router."""

from __future__ import annotations

import socket
import threading

import psutil
import pytest
import requests
from polling import wait_until

from mnist_deploy.local.core import ingress as ingress_module
from mnist_deploy.local.core.fallback_responder import FallbackResponder
from mnist_deploy.local.core.ingress import Ingress, encode_routes
from mnist_deploy.local.core.runtime import AccessPolicy, RoutingTable, RoutingTarget
from mnist_deploy.local.platforms import PLATFORMS, RequestSettings

ROUTER = "mnist_deploy.local.core.router"
MANAGED = PLATFORMS["managed"]
FAILED = RoutingTable(
    MANAGED, {"blue": RoutingTarget("/no/such/socket", 100, problem="init() raised")}
)


@pytest.fixture
def address():
    """An ingress and its listener."""
    fallback = FallbackResponder()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        made = Ingress(listener, fallback)
        yield made, f"http://127.0.0.1:{listener.getsockname()[1]}/score"
        made.end()
    fallback.close()


def status(url: str) -> int:
    return requests.post(url, "{}", timeout=20).status_code


def router_process() -> psutil.Process:
    """The newest router among the children of this process; a replaced one may be ending."""
    routers = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and ROUTER in child.cmdline()
    ]
    return max(routers, key=lambda router: router.create_time())


def test_fallback_responder_answers_until_the_router_does(address):
    ingress, url = address
    ingress.apply(RoutingTable(MANAGED), "There is no deployment.")
    assert status(url) == 404
    ingress.start_router(FAILED)
    answer = requests.post(url, "{}", timeout=20)
    assert (answer.status_code, answer.json()) == (502, {"message": "init() raised"})
    ingress.stop_router()
    ingress.apply(RoutingTable(PLATFORMS["aci"], FAILED.targets), "init() raised")
    wait_until(lambda: status(url) == 503)  # the router answers what still reaches it


@pytest.mark.parametrize("fault", [psutil.Process.kill, psutil.Process.suspend])
def test_router_that_ends_or_hangs_is_replaced(address, monkeypatch, fault):
    for name, seconds in (("PROBE_PERIOD", 0.2), ("APPLY_TIMEOUT", 0.3), ("RESTART_DELAY", 0.1)):
        monkeypatch.setattr(ingress_module, name, seconds)
    ingress, url = address
    ingress.start_router(FAILED)
    assert status(url) == 502
    first = router_process()
    fault(first)
    assert status(url) == 502  # the connection waited for the next router
    assert router_process().pid != first.pid


@pytest.mark.processes
def test_suspended_router_does_not_outlive_its_endpoint(address, monkeypatch):
    monkeypatch.setattr(ingress_module, "DRAIN_TIMEOUT", 0.3)
    ingress, _ = address
    ingress.start_router(FAILED)
    router = router_process()
    router.suspend()
    ingress.end()
    wait_until(lambda: not router.is_running())


def test_router_supervisor_is_joined_by_close(address, monkeypatch):
    monkeypatch.setattr(ingress_module, "CLOSE_TIMEOUT", 0.3)
    ingress, _ = address
    others = set(threading.enumerate())
    ingress.start_router(FAILED)
    process = router_process()
    started = set(threading.enumerate()) - others
    [supervisor] = [thread for thread in started if thread.name == "router supervisor"]
    process.suspend()
    ingress.end()
    ingress.close()
    assert not supervisor.is_alive()
    assert not process.is_running()


def test_error_of_the_supervision_does_not_end_it(address, monkeypatch):
    monkeypatch.setattr(ingress_module, "PROBE_PERIOD", 0.1)
    monkeypatch.setattr(ingress_module, "RESTART_DELAY", 0.1)
    ingress, url = address
    ingress.start_router(FAILED)
    started = ingress_module.RouterProcess._start
    attempts = []

    def fail_once(router):
        attempts.append(router)
        if len(attempts) == 1:
            raise RuntimeError("on purpose")
        return started(router)

    monkeypatch.setattr(ingress_module.RouterProcess, "_start", fail_once)
    router_process().kill()
    assert status(url) == 502
    assert len(attempts) == 2


def test_routes_carry_the_limits_of_the_platform_and_of_the_deployment():
    backends = {
        "own": RoutingTarget("s", requests=RequestSettings(2.0, 3, 0.25), instances=2),
        "default": RoutingTarget("s"),
    }
    line = encode_routes(1, RoutingTable(PLATFORMS["aks"], backends, AccessPolicy(("key",))))
    assert (b'"platform": "aks"' in line, b'"keys": ["key"]' in line) == (True, True)
    own, default = line.split(b'"default"')
    for name, value in (("max_admitted", 12), ("max_running", 6), ("max_queue_wait", 0.25)):
        assert f'"{name}": {value}'.encode() in own
    for name, value in (("max_admitted", 2), ("max_queue_wait", 0.5), ("timeout", 60.0)):
        assert f'"{name}": {value}'.encode() in default
