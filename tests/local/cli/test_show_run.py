"""The command ``show RUN``, and the lines of runs in ``show``."""

from __future__ import annotations

import pytest

from mnist_deploy.local import cli
from mnist_deploy.local.cli.show import run_line
from mnist_deploy.local.cli.show_run import draw_curve, metric_line, printable, run_lines

RUN = {
    "id": "r1",
    "name": "first",
    "experiment": "digits",
    "status": "Failed",
    "kind": "Submitted run of SDK v1",
    "started": "2026-01-01T10:00:00+00:00",
    "ended": "2026-01-01T10:01:30.5+00:00",
    "error": "It failed.\nTraceback",
    "warnings": ["one node"],
    "metrics": [],
    "inputs": [{"input": "train", "kind": "data set", "name": "digits:1"}],
    "models": [{"id": "m:1", "used_by": [{"kind": "service", "name": "svc"}]}],
    "files": [{"name": "outputs/m", "size": 5}],
    "log": "".join(f"line {number}\n" for number in range(30)),
}


def test_run_is_shown_from_its_data_to_its_service_with_the_end_of_its_log():
    lines = list(run_lines(RUN))
    assert lines[:6] == [
        "r1  first  Failed",
        "  Submitted run of SDK v1, experiment digits",
        "  started 2026-01-01 10:00:00, 90.5 s",
        "  It failed.",
        "  Traceback",
        "  warning: one node",
    ]
    assert lines[6:] == [
        "Data:", "  digits:1  data set, input train",
        "Models:", "  m:1  used by svc",
        "Files:", "  outputs/m  5 bytes",
        "End of the log:", *(f"  line {number}" for number in range(10, 30)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ({"kind": "series", "count": 3, "last": 1, "least": 1, "greatest": 3,
          "points": [[0, 3], [1, 2], [2, 1]]}, "m  1  █▅▁  1 to 3, 3 values"),
        ({"kind": "series", "count": 1, "last": 0.5, "points": [[0, 0.5]]}, "m  0.5"),
        ({"kind": "texts", "count": 1, "texts": ["text"]}, "m  text"),
        ({"kind": "file", "count": 1, "file": "a.png"}, "m  in the file a.png"),
        ({"kind": "rows", "count": 2, "columns": ["x", "y"]}, "m  table of 2 rows: x, y"),
    ],
)  # fmt: skip
def test_metric_is_shown_in_one_line(metric, line):
    assert metric_line({"name": "m"} | metric) == line


def test_curve_has_a_bounded_width_and_both_ends():
    assert draw_curve([0.0] * 1000) == "▁" * 24
    drawn = draw_curve([float(value) for value in range(1000)])
    assert (len(drawn), drawn[0], drawn[-1]) == (24, "▁", "█")


def test_run_is_listed_in_one_line_of_show():
    run = RUN | {"metrics": {"loss": 0.51234}, "models": ["m:1"]}
    assert run_line(run) == "r1  digits  Failed  2026-01-01 10:00  90.5 s  loss 0.5123  m:1"
    assert run_line(run | {"started": "", "metrics": {}, "models": []}) == "r1  digits  Failed"


def test_escape_sequences_and_overrides_do_not_reach_the_terminal():
    assert printable("a\x1b[2J\u202e\r\x07\tb") == "a\ufffd[2J\ufffd\ufffd\ufffd\tb"


def test_show_prints_a_run_and_rejects_an_unknown_one(local_ws, local_home, capsys, monkeypatch):
    from azureml.core import Experiment

    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(local_home))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    run = Experiment(local_ws, "shown").start_logging(snapshot_directory=None)
    for value in (2, 1):
        run.log("loss", value)
    run.complete()
    assert cli.main(["show", run.id]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{run.id}  ")
    assert "loss  1  █▁  1 to 2, 2 values" in shown
    assert cli.main(["show"]) == 0
    assert f"  {run.id}  shown  Completed  " in capsys.readouterr().out
    assert cli.main(["show", "none/../x"]) == 1
    assert "none/../x" in capsys.readouterr().err
