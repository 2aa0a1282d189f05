"""The process that measures a container: requests to a server that a test defines."""

from __future__ import annotations

import os
import time

import pytest
from scripted_server import ScriptedServer

from mnist_deploy.local.programs import profile
from mnist_deploy.local.programs.profile import CpuGauge, is_enough, send_rows, summarize


@pytest.fixture
def _few_queries(monkeypatch):
    monkeypatch.setattr(profile, "MIN_QUERIES", 7)
    monkeypatch.setattr(profile, "MIN_SECONDS", 0.0)


@pytest.mark.usefixtures("_few_queries")
def test_rows_are_sent_in_turn_until_there_are_enough_queries():
    def respond(handler, body):
        return (500, b"two is no input") if body == b"2" else (200, b"ok")

    with ScriptedServer(respond) as server:
        measured = send_rows(server.uri, ["1", "2", "3"], [os.getpid()])
    assert server.bodies == [b"1", b"2", b"3", b"1", b"2", b"3", b"1"]
    assert server.content_types == ["application/json"] * 7
    assert (measured.queries, measured.succeeded, measured.unsent) == (7, 5, 0)
    assert measured.reason == "status 500: two is no input"
    assert measured.latencies["p50"] <= measured.latencies["p999"] <= 1000 * measured.seconds
    assert measured.peak_memory > 1 << 20


@pytest.mark.usefixtures("_few_queries")
def test_connection_that_is_closed_is_a_failed_request():
    with ScriptedServer(lambda handler, body: None) as server:
        measured = send_rows(server.uri, ["1"], [])
    assert measured.succeeded == 0
    assert measured.latencies == {}
    assert "the container did not answer: RemoteDisconnected" in measured.reason


def test_rows_not_sent_within_the_time_limit_are_counted(monkeypatch):
    monkeypatch.setattr(profile, "MAX_SECONDS", -1.0)
    with ScriptedServer(lambda handler, body: (200, b"ok")) as server:
        assert send_rows(server.uri, ["1", "2"], []).unsent == 2


@pytest.mark.parametrize(
    ("queries", "rows", "seconds", "expected"),
    [
        (99, 5, 9.0, False),  # 100 are wanted
        (100, 5, 1.9, False),  # which take 2 s
        (100, 5, 2.0, True),
        (20, 5, 10.0, True),  # a slow script
        (20, 500, 600.0, False),  # each row once
        (20, 500, 1201.0, True),
    ],
)
def test_number_of_queries_follows_from_rows_and_time(queries, rows, seconds, expected):
    assert is_enough(queries, rows, seconds) is expected


def test_percentiles_are_latencies_that_were_measured():
    found = summarize([float(n) for n in range(1, 1001)])
    assert found == {
        "mean": 500.5,
        "p50": 500.0,
        "p90": 900.0,
        "p95": 950.0,
        "p99": 990.0,
        "p999": 999.0,
    }
    assert summarize([3.0])["p999"] == 3.0


def test_busiest_window_is_the_use_of_the_cpu(monkeypatch):
    now, used = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    gauge = CpuGauge(lambda: used[0])
    for now[0], used[0] in ((0.5, 0.1), (1.0, 0.2), (2.0, 1.1), (3.0, 1.2)):
        gauge.sample()
    assert gauge.highest() == pytest.approx(0.9)


def test_use_of_the_cpu_is_the_average_where_no_window_has_ended(monkeypatch):
    now, used = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    gauge = CpuGauge(lambda: used[0])
    now[0], used[0] = 0.5, 0.2
    gauge.sample()
    assert gauge.highest() == pytest.approx(0.4)
