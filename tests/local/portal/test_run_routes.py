"""The routes of runs, as a tab with a token and without one calls them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import pytest
from generated_requests import portal_to_try

from mnist_deploy.local.core.metrics import Metric
from mnist_deploy.local.core.runs import LOG_FILE, Runs
from mnist_deploy.local.portal import run_routes
from mnist_deploy.local.rest import state_of

MARKUP = "<img src=x onerror=alert(1)>"
ROUTES = ["/api/runs", "/api/run?id=s", "/api/run-log?id=s", "/api/run-download"]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with portal_to_try(tmp_path_factory.mktemp("portal")) as app:
        yield app


@pytest.fixture(scope="module")
def runs(app) -> Runs:
    return state_of(app).part(Runs)


@pytest.fixture
def tab(app):
    """A client that sends the token of a tab."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {state_of(app).token}"
    return client


def write(runs: Runs, run_id: str, name: str, *content: bytes) -> str:
    """Write a file of a new run; the file's path in the store."""
    path = f"{runs.create(runs.create_experiment('files'), run_id).artifacts}/{name}"
    runs.store.write(path, content)
    return path


def download(tab, **requested: str):
    url = tab.post("/api/run-download", json=requested).json["url"]
    with tab.get(url, headers={"Authorization": ""}) as answer:
        answer.get_data()
        return answer


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Host": "attacker.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"}, 403),
    ],
)
def test_unauthorized_request_for_runs_is_rejected(tab, path, headers, status):
    method = "POST" if path.endswith("download") else "GET"
    answer = tab.open(path, method=method, json={"id": "s"}, headers=headers)
    assert (answer.status_code, set(answer.json)) == (status, {"message"})


def test_runs_are_searched_and_listed_page_by_page(tab, runs, monkeypatch):
    monkeypatch.setattr(run_routes, "MAX_RUNS", 2)
    experiment = runs.create_experiment(MARKUP)
    for number in range(4):
        runs.create(experiment, f"r{number}", name=MARKUP)
    first = tab.get("/api/runs").json
    assert ([run["id"] for run in first["runs"]], first["has_more"]) == (["r3", "r2"], True)
    query = {"before": first["runs"][-1]["position"], "text": "IMG"}
    last = tab.get("/api/runs", query_string=query).json
    assert ([run["id"] for run in last["runs"]], last["has_more"]) == (["r1", "r0"], False)
    assert last["runs"][0]["name"] == last["runs"][0]["experiment"] == MARKUP


@pytest.mark.parametrize(
    "query", ["before=-1", "before=x", f"before={10**30}", "text=" + "x" * 201]
)
def test_malformed_search_is_rejected(tab, query):
    assert tab.get(f"/api/runs?{query}").status_code == 400


def test_unknown_run_is_not_found(tab):
    for path in ("/api/run?id=none", "/api/run-log?id=none", "/api/run?id=../s", "/api/run?id="):
        assert tab.get(path).status_code == 404
    for requested in ({"id": "none"}, {"id": "s", "name": "../dcid.s/outputs/f"}):
        assert tab.post("/api/run-download", json=requested).status_code == 404


def test_run_is_sent_with_metrics_files_and_log(tab, runs):
    runs.metrics.log("s", [Metric(MARKUP, {MARKUP: "double"}, "scalar", ({"data": {MARKUP: 2}},))])
    shown = tab.get("/api/run?id=s").json
    assert [each["name"] for each in shown["metrics"]] == [MARKUP, "m"]
    assert [each["name"] for each in shown["files"]] == ["outputs/f", LOG_FILE]
    assert tab.get("/api/run-log?id=s&start=2").json == {"text": "ne\n", "start": 2, "end": 5}


def test_file_of_a_run_is_downloaded_once_by_its_code(tab):
    url = tab.post("/api/run-download", json={"id": "s", "name": "outputs/f"}).json["url"]
    with tab.get(url, headers={"Authorization": ""}) as answer:
        assert (answer.data, answer.content_length) == (b"line\n", 5)
    assert answer.headers["Content-Disposition"] == "attachment; filename=f"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert tab.get(url).status_code == 401


def test_file_name_of_a_run_cannot_add_a_header(tab, runs):
    name = "a\r\nSet-Cookie: b=c\N{SNOWMAN}"
    write(runs, "odd", name, b"1")
    answer = download(tab, id="odd", name=name)
    assert answer.data == b"1"
    assert "Set-Cookie" not in answer.headers


def test_all_files_of_a_run_are_downloaded_as_an_archive(tab):
    answer = download(tab, id="s")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert sorted(archive.namelist()) == ["outputs/f", LOG_FILE]
    assert answer.headers["Content-Disposition"] == "attachment; filename=s.zip"


def test_growing_log_is_downloaded_with_the_length_it_had(tab, runs):
    path = write(runs, "growing", LOG_FILE, b"line\n")
    url = tab.post("/api/run-download", json={"id": "growing", "name": LOG_FILE}).json["url"]
    with tab.get(url) as answer:
        runs.store.append(path, [b"more\n"])
        assert (b"".join(answer.response), answer.content_length) == (b"line\n", 5)


@pytest.mark.parametrize("name", ["outputs/large", ""])
def test_large_file_is_downloaded_in_bounded_memory(tab, runs, name):
    run_id = f"large {len(name)}"
    write(runs, run_id, "outputs/large", *[b"0" * (1 << 20)] * 64)
    url = tab.post("/api/run-download", json={"id": run_id, "name": name}).json["url"]
    tracemalloc.start()
    try:
        with tab.get(url) as answer:
            size = sum(len(each) for each in answer.response)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size >= 64 << 20
    assert most < 8 << 20


def test_studio_url_of_a_run_redirects_to_its_view(tab):
    """azureml-core's ``get_portal_url`` and azure-ai-ml's ``studio_url`` name ``/runs/ID``."""
    answer = tab.get("/runs/a%20b?wsid=/subscriptions/s&tid=t", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/#/runs/a%20b")
    outside = tab.get("/runs/%5C%5Cattacker.example%3Fa").headers["Location"]
    assert outside == "/#/runs/%5C%5Cattacker.example%3Fa"
