"""Runs in a real browser: hostile names, a growing log, curves, a long list, lineage."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from browser import CONTRAST, OVERFLOW, Page
from polling import wait_until

from mnist_deploy import local

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror='document.title=1'>"
HOSTILE = f"{MARKUP} \N{RIGHT-TO-LEFT OVERRIDE}reversed"
SHOWN = f"{MARKUP} \N{MATHEMATICAL LEFT ANGLE BRACKET}U+202E\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
MLFLOW = "/mlflow/api/2.0/mlflow"


class Tracking:
    """Runs of one experiment, as MLflow's client logs them."""

    def __init__(self, address) -> None:
        self._url = address.url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(address.certificate)
        self._session.headers["Authorization"] = f"Bearer {address.token}"
        name = f"digits {MARKUP}"
        self.experiment = self.post("experiments/create", name=name)["experiment_id"]

    def post(self, call: str, **body: object) -> dict:
        answer = self._session.post(f"{self._url}{MLFLOW}/{call}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def start(self, name: str, **metrics: list[float]) -> str:
        """Create a run with the values of metrics, one for each step; return its id."""
        created = self.post(
            "runs/create", experiment_id=self.experiment, run_name=name, start_time=5
        )
        run_id = created["run"]["info"]["run_id"]
        for key, values in metrics.items():
            logged = [
                {"key": key, "value": value, "timestamp": step, "step": step}
                for step, value in enumerate(values)
            ]
            self.post("runs/log-batch", run_id=run_id, metrics=logged)
        return run_id

    def write(self, run_id: str, name: str, content: str) -> None:
        path = quote(f"{self.experiment}/{run_id}/artifacts/{name}")
        url = f"{self._url}/mlflow/api/2.0/mlflow-artifacts/artifacts/{path}"
        assert self._session.put(url, data=content.encode(), timeout=60).ok

    def log(self, run_id: str, content: str) -> None:
        self.write(run_id, "user_logs/std_log.txt", content)

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        self.post("runs/update", run_id=run_id, status=status)


@pytest.fixture(scope="module")
def tracking(local_ws, endpoint):
    return Tracking(endpoint)


@pytest.fixture(scope="module")
def page(browser, local_ws, local_home):
    page = Page(browser, local.portal_link(local_home))
    page.look_as(1280)
    yield page
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert complaints == []


@pytest.fixture(scope="module")
def hostile(tracking):
    """A failed run whose names, values and log are markup."""
    run_id = tracking.start(HOSTILE, **{HOSTILE: [1.0, 2.0]})
    tracking.post("runs/log-batch", run_id=run_id, params=[{"key": HOSTILE, "value": HOSTILE}],
                  tags=[{"key": HOSTILE, "value": HOSTILE}])  # fmt: skip
    tracking.write(run_id, f"outputs/{MARKUP.replace('/', '')}.txt", "f")
    tracking.log(run_id, f"{HOSTILE}\n\x1b[31mred\x1b[0m\nprogress 1\rprogress 2\n")
    tracking.end(run_id, "FAILED")
    return run_id


def shown_log(page: Page) -> str:
    return page.run("return document.querySelector('#run-log')?.textContent ?? ''")


def test_hostile_names_and_log_of_a_run_are_shown_as_text(page, hostile):
    page.go("#/runs", f"a[href='#/runs/{hostile}']")
    assert SHOWN in page.text("main table")
    page.go(f"#/runs/{hostile}", "#run-log")
    wait_until(lambda: "progress" in shown_log(page))
    assert SHOWN in shown_log(page)
    assert "\nred\nprogress 2\n" in shown_log(page)
    assert page.text().count(SHOWN) >= 6  # title, metric, log, parameter, tag
    assert page.browser.title.startswith(SHOWN)
    assert not page.all("main img, main script")


def test_log_of_a_run_grows_until_the_run_has_ended(page, tracking):
    run_id = tracking.start("growing")
    lines = ["first\n", "second\n"]
    tracking.log(run_id, lines[0])
    page.go(f"#/runs/{run_id}", "#run-log")
    wait_until(lambda: shown_log(page) == lines[0])
    tracking.log(run_id, "".join(lines))
    wait_until(lambda: shown_log(page) == "".join(lines))
    lines += [f"line {number} {'x' * 100}\n" for number in range(5000)]
    tracking.log(run_id, "".join(lines))
    wait_until(lambda: "line 4999" in shown_log(page))
    assert "second" not in shown_log(page)
    assert page.wait("#run-log-cut").is_displayed()
    assert page.run("const log = document.querySelector('#run-log');"
                    "return log.scrollTop + log.clientHeight >= log.scrollHeight - 2")  # fmt: skip
    tracking.log(run_id, "".join([*lines, "without end"]))
    tracking.end(run_id)
    wait_until(lambda: shown_log(page).endswith("without end"))
    assert "Completed" in page.text(".title")


def test_curve_of_many_values_is_bounded_and_described(page, tracking):
    values = [1 / (1 + step) for step in range(10_000)]
    run_id = tracking.start("many values", loss=values[:1000])
    tracking.post("runs/log-batch", run_id=run_id, metrics=[
        {"key": "loss", "value": value, "timestamp": step, "step": step}
        for step, value in enumerate(values) if step >= 1000])  # fmt: skip
    page.go(f"#/runs/{run_id}", ".series svg")
    curve = page.wait(".series svg")
    assert curve.get_attribute("role") == "img"
    assert curve.get_attribute("aria-label") == (
        "loss: 10000 values, step 0 to 9,999, from 1 to 0.0001, lowest 0.0001, highest 1"
    )
    points = page.wait(".series polyline").get_attribute("points").split()
    assert 100 < len(points) <= 200
    assert (points[0], points[-1]) == ("0.0,2.0", "120.0,26.0")


def test_long_list_of_runs_has_pages_and_a_search(page, tracking):
    for number in range(101):
        tracking.start(f"sweep {number}")
    page.go("#/runs", "[data-run-page=older]")
    page.click("Older runs")
    wait_until(lambda: "Page 2" in page.text())
    assert page.all("[data-run-page=newest]")
    page.wait("#run-filter").send_keys("SWEEP 100")
    wait_until(lambda: len(page.all("main tbody tr")) == 1)
    assert "sweep 100" in page.text("main table")
    page.wait("#run-filter").send_keys(" none of this name")
    wait_until(lambda: "Nothing was found" in page.text())
    page.wait("#run-filter").clear()
    page.wait("#run-filter").send_keys(" ")


def test_lineage_links_a_run_to_its_model_and_back(page, local_ws, tmp_path):
    from azureml.core import Experiment

    run = Experiment(local_ws, "lineage").start_logging(snapshot_directory=None)
    Path("model.pkl").write_bytes(b"m")
    run.upload_file("outputs/model.pkl", "model.pkl")
    run.register_model("lineage-model", "outputs/model.pkl")
    run.complete()
    page.go(f"#/runs/{run.id}", ".lineage a")
    assert page.wait(".lineage a").text == "lineage-model:1"
    page.click("Download all")
    wait_until(lambda: f"Downloading all files of {run.id}." in page.text("#notice"))
    page.wait(".lineage a").click()
    page.wait(f"#model-lineage-model a[href='#/runs/{run.id}']").click()
    wait_until(lambda: page.all(".lineage"))


def test_run_that_does_not_exist_is_reported(page):
    page.go("#/runs/none%20such", ".empty")
    assert "There is no such run" in page.text()
    page.go("#/runs")
    page.browser.get_log("browser")  # Chromium reports each 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_runs_fit_a_telephone_and_large_text_with_readable_contrast(page, hostile, scheme):
    try:
        for width, size in ((320, ""), (500, "200%"), (1280, "")):
            page.look_as(width, scheme)
            page.run("document.documentElement.style.fontSize = arguments[0]", size)
            for place, selector in (("#/runs", "main table"), (f"#/runs/{hostile}", "#run-log")):
                page.go(place, selector)
                assert page.run(OVERFLOW) == [], (place, width)
                assert page.run(CONTRAST) == [], (place, width)
    finally:
        page.run("document.documentElement.style.fontSize = ''")
        page.look_as(1280)


def test_controls_tables_and_curves_of_runs_have_accessible_names(page, hostile):
    for place, selector in (("#/runs", "main table"), (f"#/runs/{hostile}", ".series svg")):
        page.go(place, selector)
        tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = ("button", "link", "checkbox", "searchbox", "log", "table", "image")
        named = [node for node in tree if node.get("role", {}).get("value") in roles]
        assert [node for node in named if not node["name"]["value"]] == []
        assert len(page.all("h1")) == 1
        for table in page.all("main table"):
            assert table.find_elements("css selector", "caption")
            assert table.find_elements("css selector", "thead th[scope=col]")


def test_log_and_downloads_of_a_run_are_reached_by_keyboard(page, hostile):
    page.go(f"#/runs/{hostile}", "[data-run-file]")
    reached = page.run(
        """return [...document.querySelectorAll("#run-log, [data-run-file], #follow, .back a")]
        .map((each) => each.tabIndex)"""
    )
    assert len(reached) >= 5
    assert set(reached) == {0}


def test_finished_run_is_polled_rarely(page, hostile):
    page.go(f"#/runs/{hostile}", "#run-log")
    wait_until(lambda: "progress" in shown_log(page))
    time.sleep(4)  # until the log is known to be complete
    page.run("performance.clearResourceTimings()")
    time.sleep(6)
    names = page.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert len([name for name in names if "/api/run?" in name]) <= 4
    assert not [name for name in names if "/api/run-log" in name]
