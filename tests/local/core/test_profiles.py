"""Profiles without a container: what follows from measurements, and interrupted profiles."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from mnist_deploy.local.core.container_spec import ContainerSpec
from mnist_deploy.local.core.profiles import (
    INTERRUPTED,
    Profiler,
    find_end,
    find_problem,
    recommend_cpu,
    recommend_memory,
)
from mnist_deploy.local.core.records import Profile, now

GOOD = {"queries": 100, "succeeded": 100, "unsent": 0, "rows": 5, "cores": 0.4, "reason": ""}


@pytest.mark.parametrize(
    ("cores", "expected"), [(0.0, 0.1), (0.1, 0.1), (0.11, 0.2), (0.7, 0.7), (1.98, 2.0)]
)
def test_recommended_cpu_is_rounded_up(cores, expected):
    assert recommend_cpu({"cores": cores}) == expected


@pytest.mark.parametrize(("peak", "expected"), [(0, 0.1), (2**30, 1.3), (100 << 20, 0.2)])
def test_recommended_memory_is_the_peak_with_a_reserve(peak, expected):
    assert recommend_memory({"peak_memory": peak}) == expected


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({}, None),
        ({"succeeded": 97, "reason": "status 500: no"}, "3 of 100 requests failed, the first one"),
        ({"unsent": 2}, "2 of 5 rows were not sent within the time limit"),
        ({"cores": 0.9}, "used 0.9 cores, and 0.5 were requested: Azure would throttle it"),
    ],
)
def test_issues_of_a_successful_profile_are_named(change, issue):
    found = find_problem(GOOD | change, ContainerSpec("s.py", (), cpu_cores=0.5))
    assert found is None if issue is None else issue in str(found)


def test_more_cores_than_the_machine_has_are_an_issue(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = find_problem(GOOD, ContainerSpec("s.py", (), cpu_cores=3.5))
    assert "this machine has 2 cores, not 3.5" in str(found)


def test_first_end_of_a_process_is_the_reason():
    log = (
        "2026 container - environment: something\nprinted by the script\n"
        "2026 container - the scoring process is restarted: it ended with exit status 5\n"
        "2026 container - its process ended 3 times in a minute; trying again in 8 s\n"
    )
    assert find_end(log) == "the scoring process is restarted: it ended with exit status 5"


def test_unfinished_profile_fails_at_the_next_start_and_an_ended_one_is_kept(store, tmp_path):
    store.add(Profile("p", 0, now(), "d", (), 1.0, 0.5, state="Succeeded", measured=GOOD))
    store.add(Profile("p", 0, now(), "d", (), 1.0, 0.5))
    profiler = Profiler(store, SimpleNamespace(), tmp_path, None, {})
    profiler.fail_interrupted()
    interrupted, kept = store.all(Profile)
    assert interrupted.error == {"code": "WorkspaceEnded", "message": INTERRUPTED}
    assert (interrupted.state, kept.state, kept.measured) == ("Failed", "Succeeded", GOOD)


def test_log_of_a_profile_is_kept_by_the_sweep(store):
    path = store.write("Profile/p.1/log.txt", [b"log"]).path
    store.write("Profile/gone.1/log.txt", [b"log"])
    store.add(Profile("p", 0, now(), "d", (), 1.0, 0.5, artifacts=(path,)))
    store.sweep()
    assert [each.path for each in store.artifacts("Profile")] == [path]
