"""The verb that prints what is registered, what runs and where it lies."""

from __future__ import annotations

import argparse
from typing import Any

from .. import home_folder, start
from ..control_plane import call
from ..discovery import ControlPlaneAddress
from .tutorial import find_tutorial


def show(options: argparse.Namespace) -> int:
    """Print it; a workspace that does not run is started for as long as this takes."""
    home = home_folder()
    if not (home / "store").is_dir():
        print(f"Nothing is registered: there is no local workspace in {home}.")
        return 0
    running = ControlPlaneAddress.read(home / "run")
    endpoint = start()
    is_running = running is not None and running.pid == endpoint.pid
    print(f"Local workspace in {home}")
    print(f"  running at {endpoint.url}, process {endpoint.pid}" if is_running else "  not running")
    found = call(endpoint, "GET", "/workspace").json()
    for title, line in (
        ("Models", model_line),
        ("Environments", identifier),
        ("Services", service_line),
    ):
        lines = [line(each) for each in found[title.lower()]]
        print(f"{title}:{'' if lines else ' none'}")
        print("".join(f"  {line}\n" for line in lines), end="")
    return 0


def identifier(record: dict[str, Any]) -> str:
    return f"{record['name']}:{record['version']}"


def model_line(model: dict[str, Any]) -> str:
    properties = model["properties"]
    known = [f"{name} {properties[name]}" for name in find_tutorial().shown if name in properties]
    return "  ".join([identifier(model), model["created"][:16].replace("T", " "), *known])


def service_line(service: dict[str, Any]) -> str:
    models = {model: None for each in service["deployments"] for model in each["models"]}
    parts = [service["name"], service["state"], service["uri"], ", ".join(models)]
    return "  ".join([*filter(None, parts), usage(**service["usage"])])


def usage(requests: int, failed: int, p50: float | None, p95: float | None) -> str:
    counts = f"{requests} requests, {failed} failed"
    if p50 is None or p95 is None:
        return counts
    return f"{counts}, p50 {1000 * p50:.3g} ms, p95 {1000 * p95:.3g} ms"
