"""The portal's routes of experiments and runs."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, redirect
from msgspec import Meta, Struct

from ..bodies import body, query
from ..core.runs import Runs
from ..rest import endpoints, state
from .metric_listing import MetricListing
from .page_state import page_state
from .run_files import find_run_file, read_log
from .run_listing import MAX_RUNS, describe_run, list_runs

Position = Annotated[int, Meta(ge=0, le=2**62)]

run_routes = Blueprint("runs", __name__)


def runs() -> Runs:
    return state().part(Runs)


class Search(Struct):
    text: Annotated[str, Meta(max_length=200)] = ""
    before: Position | None = None


@run_routes.get("/api/runs")
def search_runs() -> Response:
    """Return the latest runs with a text in their names, and whether there are earlier runs."""
    requested = query(Search)
    found = list_runs(runs(), requested.text, requested.before, MAX_RUNS + 1)
    return jsonify(runs=found[:MAX_RUNS], has_more=len(found) > MAX_RUNS)


class RunId(Struct):
    id: str


@run_routes.get("/api/run")
def show_run() -> Response:
    run = runs().get(query(RunId).id)
    return jsonify(describe_run(run, runs(), endpoints(), state().part(MetricListing)))


class LogQuery(RunId):
    start: Position = 0


@run_routes.get("/api/run-log")
def show_log() -> Response:
    """Return the log of a run from a byte, with a bounded length."""
    requested = query(LogQuery)
    return jsonify(read_log(runs().get(requested.id), runs(), requested.start))


class RunFile(RunId):
    name: str = ""


@run_routes.post("/api/run-download")
def prepare_run_download() -> Response:
    """Create a one-time link to a file of a run, or to all its files."""
    requested = body(RunFile)
    run = runs().get(requested.id)
    if requested.name:
        find_run_file(run, runs(), requested.name)
    code = page_state().codes.issue("run", run.id, requested.name)
    return jsonify(url=f"/download/{code}")


@run_routes.get("/runs/<run_id>")
def open_run(run_id: str) -> Response:
    """Redirect the URLs of ``run.get_portal_url()`` and of a job's studio to the page."""
    return redirect(f"/#/runs/{quote(run_id, safe='')}")  # type: ignore[return-value]
