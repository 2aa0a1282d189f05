"""What is kept of a service's telemetry, and what a histogram tells in its place."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core import telemetry as telemetry_module
from mnist_deploy.local.core.telemetry import Request, Telemetry, summary_of


def test_counts_and_percentiles_of_the_latest(monkeypatch):
    telemetry = Telemetry()
    assert telemetry.summary() == {"requests": 0, "failed": 0, "p50": None, "p95": None}
    for milliseconds in range(100):
        telemetry.count(Request(milliseconds / 1000, success=milliseconds % 10 != 0))
    assert telemetry.summary() == {"requests": 100, "failed": 10, "p50": 0.05, "p95": 0.095}
    assert telemetry.key not in repr(telemetry)


def test_its_memory_is_bounded():
    telemetry = Telemetry()
    for number in range(telemetry_module.KEPT + telemetry_module.TRACES):
        telemetry.count(Request(1.0, success=True))
        telemetry.trace("now", f"{number} " + "x" * 10_000)
    assert len(telemetry._seconds) == telemetry_module.KEPT
    assert len(telemetry.traces) == telemetry_module.TRACES
    assert max(len(text) for _, text in telemetry.traces) == telemetry_module.LONGEST_TRACE


@pytest.mark.parametrize(
    ("histogram", "p50", "p95"),
    [([0, 0, 0], None, None), ([], None, None), ([2, 0, 0], 0.05, 0.095), ([6, 3, 1], 0.083, 0.2),
     ([10, 90, 0], 0.144, 0.194), ([0, 0, 1], 0.2, 0.2)],
)  # fmt: skip
def test_a_histogram_tells_about_the_same(histogram, p50, p95):
    counts = {"requests": sum(histogram), "failed": 1, "histogram": histogram}
    summary = summary_of(counts, [0.1, 0.2])
    assert (summary["p50"], summary["p95"]) == pytest.approx((p50, p95), abs=0.001)
    assert summary["failed"] == 1
