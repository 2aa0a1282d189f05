"""Offline substitute of azureml.widgets: a run's status, metrics and log in the notebook."""

from __future__ import annotations

import html
import threading
import time
from typing import Any

POLL_INTERVAL = 1.0  # seconds between two requests for a run
LOG_LINES = 20
TERMINAL = ("Completed", "Failed", "Canceled")
CURVE_WIDTH, CURVE_HEIGHT = 120, 24  # pixels


class RunDetails:
    """Shows a run in a notebook, and updates the output until the run has ended.

    The daemon thread ``run details`` is started by `show`. It ends with the run or the kernel, and
    is not joined: the cell's output stays in the notebook.

    Parameters
    ----------
    run_instance : azureml.core.Run
    """

    def __init__(self, run_instance: Any) -> None:
        self._run = run_instance

    def show(self, render_lib: Any = None, widget_settings: Any = None) -> None:
        """Display the run; in a script, print its status."""
        handle = _display("<p>…</p>")
        if handle is None:
            print(f"Run {self._run.id}: {self._run.get_status()}")
            return
        threading.Thread(
            target=self._update_until_end, args=(handle,), daemon=True, name="run details"
        ).start()

    def get_widget_data(self) -> dict[str, Any]:
        """The displayed values."""
        return {
            "status": self._run.get_status(),
            "run_id": self._run.id,
            "run_metrics": self._run.get_metrics(),
        }

    def _update_until_end(self, handle: Any) -> None:
        from azureml.core import Run

        run = Run.get(self._run.experiment.workspace, self._run.id)
        while True:
            details = run.get_details_with_logs()
            handle.update(_html(_render(run.id, details, run.get_metrics())))
            if details["status"] in TERMINAL:
                return
            time.sleep(POLL_INTERVAL)


class PipelineRunDetails(RunDetails):
    """As :class:`RunDetails`."""


def _html(content: str) -> Any:
    from IPython.display import HTML

    return HTML(content)


def _display(content: str) -> Any:
    """Create an output of the running cell, and return its handle; None outside of a notebook."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return display(_html(content), display_id=True)


def _render(run_id: str, details: dict[str, Any], metrics: dict[str, Any]) -> str:
    rows = {"Run": run_id, "Status": details["status"]}
    for title, key in (("Started", "startTimeUtc"), ("Ended", "endTimeUtc")):
        if details.get(key):
            rows[title] = str(details[key])[:19].replace("T", " ")
    cells = [(name, html.escape(str(value))) for name, value in rows.items()]
    cells += [(name, _render_metric(value)) for name, value in metrics.items()]
    table = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{value}</td></tr>" for name, value in cells
    )
    log = "\n".join(next(iter(details.get("logFiles", {}).values()), "").splitlines()[-LOG_LINES:])
    return f"<table>{table}</table><pre>{html.escape(log)}</pre>"


def _render_metric(value: Any) -> str:
    numbers = value if isinstance(value, list) else [value]
    text = html.escape(str(numbers[-1] if numbers else ""))
    is_curve = len(numbers) > 1 and all(isinstance(each, int | float) for each in numbers)
    return f"{_curve(numbers)} {text}" if is_curve else text


def _curve(numbers: list[float]) -> str:
    low, high = min(numbers), max(numbers)
    points = " ".join(
        f"{CURVE_WIDTH * n / (len(numbers) - 1):.1f},"
        f"{CURVE_HEIGHT - CURVE_HEIGHT * (each - low) / ((high - low) or 1):.1f}"
        for n, each in enumerate(numbers)
    )
    return (
        f'<svg width="{CURVE_WIDTH}" height="{CURVE_HEIGHT}"><polyline points="{points}" '
        'fill="none" stroke="currentColor"/></svg>'
    )
