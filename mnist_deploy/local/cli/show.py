"""The command ``show``: list records, runs and running services, or one run."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from .. import LocalWorkspaceError, home_folder, start
from ..control_plane import call
from ..discovery import ControlPlaneAddress
from .show_run import duration_of, printable, run_lines
from .tutorial import find_tutorial

MAX_RUNS = 20  # of the list


def show(options: argparse.Namespace) -> int:
    """List the workspace; a stopped control plane is started for the duration of the command."""
    home = home_folder()
    if not (home / "store").is_dir():
        print(f"Nothing is registered: there is no local workspace in {home}.")
        return 0
    running = ControlPlaneAddress.read(home / "run")
    endpoint = start()
    if options.run:
        return show_run(endpoint, options.run)
    is_running = running is not None and running.pid == endpoint.pid
    print(f"Local workspace in {home}")
    print(f"  running at {endpoint.url}, process {endpoint.pid}" if is_running else "  not running")
    found = call(endpoint, "GET", "/workspace").json()
    earlier = found["run_count"] - len(found["runs"][:MAX_RUNS])
    found["runs"] = found["runs"][:MAX_RUNS]
    for title, describe in (
        ("Models", model_line),
        ("Environments", identifier),
        ("Runs", run_line),
        ("Services", service_lines),
    ):
        lines = [error_line(each) if "broken" in each else describe(each)
                 for each in found[title.lower()]]  # fmt: skip
        lines += [f"and {earlier} earlier runs"] if title == "Runs" and earlier else []
        print(f"{title}:{'' if lines else ' none'}")
        print("".join(f"  {printable(line)}\n" for line in lines), end="")
    return 0


def show_run(address: ControlPlaneAddress, run_id: str) -> int:
    answer = call(address, "GET", f"/workspace/runs/{quote(run_id, safe='')}")
    if not answer.ok:
        raise LocalWorkspaceError(answer.json()["error"]["message"])
    for line in run_lines(answer.json()):
        print(printable(line))
    return 0


def identifier(record: dict[str, Any]) -> str:
    return ":".join(filter(None, (record["name"], record.get("version"))))


def model_line(model: dict[str, Any]) -> str:
    properties = model["properties"]
    names = [name for name in find_tutorial().shown_properties if name in properties]
    created = model["created"][:16].replace("T", " ")
    return "  ".join(
        [identifier(model), created, *(f"{name} {properties[name]}" for name in names)]
    )


def run_line(run: dict[str, Any]) -> str:
    metrics = [f"{name} {value:.4g}" for name, value in run["metrics"].items()]
    started = run["started"][:16].replace("T", " ")
    parts = [run["id"], run["experiment"], run["status"], started, duration_of(run)]
    return "  ".join(filter(None, [*parts, *metrics, *run["models"]]))


def error_line(record: dict[str, Any]) -> str:
    return f"{identifier(record)}  cannot be listed: {record['broken']}"


def service_lines(service: dict[str, Any]) -> str:
    """A line for the service, and one for each problem and warning of its deployments."""
    lines = [service_line(service)]
    for deployment in service["deployments"]:
        reason = deployment["error"].partition("\n")[0]
        lines += [f"  {deployment['name']} failed: {reason}"] if reason else []
        lines += [f"  {deployment['name']} warns: {each}" for each in deployment["notes"]]
    return "\n  ".join(lines)


def service_line(service: dict[str, Any]) -> str:
    models = {model: None for each in service["deployments"] for model in each["models"]}
    parts = [service["name"], service["state"], service["uri"], ", ".join(models)]
    return "  ".join([*filter(None, parts), usage(**service["usage"])])


def usage(requests: int, failed: int, p50: float | None, p95: float | None) -> str:
    counts = f"{requests} requests, {failed} failed"
    if p50 is None or p95 is None:
        return counts
    return f"{counts}, p50 {1000 * p50:.3g} ms, p95 {1000 * p95:.3g} ms"
