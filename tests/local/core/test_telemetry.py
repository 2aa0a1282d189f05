"""The traces of a service, and the summary of the histogram of its containers."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core import telemetry as telemetry_module
from mnist_deploy.local.core.telemetry import Telemetry, summary_of


def test_memory_of_traces_is_bounded():
    telemetry = Telemetry()
    for number in range(2 * telemetry_module.MAX_TRACES):
        telemetry.trace("now", f"{number} " + "x" * 10_000)
    assert len(telemetry.traces) == telemetry_module.MAX_TRACES
    assert max(len(text) for _, text in telemetry.traces) == telemetry_module.MAX_TRACE_LENGTH
    assert telemetry.key not in repr(telemetry)


@pytest.mark.parametrize(
    ("histogram", "p50", "p95"),
    [([0, 0, 0], None, None), ([], None, None), ([2, 0, 0], 0.05, 0.095), ([6, 3, 1], 0.083, 0.2),
     ([10, 90, 0], 0.144, 0.194), ([0, 0, 1], 0.2, 0.2)],
)  # fmt: skip
def test_quantiles_are_estimated_from_the_histogram(histogram, p50, p95):
    counts = {"requests": sum(histogram), "failed": 1, "histogram": histogram}
    summary = summary_of(counts, [0.1, 0.2])
    assert (summary["p50"], summary["p95"]) == pytest.approx((p50, p95), abs=0.001)
    assert summary["failed"] == 1
