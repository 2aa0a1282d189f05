"""The page in a real browser: views, clicks, drawing, and requests that the browser blocks."""

from __future__ import annotations

import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from browser import CONTRAST, OVERFLOW, Page, seven, zero
from polling import wait_until
from weights_service import make_inference_config

from mnist_deploy import local
from mnist_deploy.testing.digits import pickled_model
from mnist_deploy.tutorial import LOCAL_WORKSPACE, tutorial_file

pytestmark = pytest.mark.browser

NO_LABEL = "\N{EN DASH}"
HOSTILE = "<img src=x onerror='document.title=1'>"
SERVICE = "#/services/service/digits"


@pytest.fixture(scope="module")
def digits(local_ws, tmp_path_factory):
    """The tutorial's script with a small model, behind a key, and with a hostile tag."""
    from azureml.core import Environment, Model
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice

    folder = tmp_path_factory.mktemp("digits")
    (folder / "sklearn_mnist_model.pkl").write_bytes(pickled_model())
    shutil.copy(tutorial_file("score.py"), folder)
    environment = Environment("digits-env")
    environment.python.user_managed_dependencies = True
    tags = {HOSTILE: HOSTILE}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = Model.register(local_ws, "sklearn_mnist_model.pkl", "sklearn_mnist", tags=tags)
    service = Model.deploy(
        local_ws,
        "digits",
        [model],
        InferenceConfig("score.py", source_directory=str(folder), environment=environment),
        AciWebservice.deploy_configuration(1, 1, auth_enabled=True, tags=tags),
    )
    service.wait_for_deployment()
    yield service
    service.delete()


@pytest.fixture(scope="module")
def page(browser, digits, local_home):
    page = Page(browser, local.portal_link(local_home, files=LOCAL_WORKSPACE["page"]))
    page.look_as(1280)
    yield page
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert complaints == []


# Logs, tabs, text size
LOUD = """
def init():
    for number in range(600): print("line", number)
    print("\\x1b[31mred\\x1b[0m \\u202Ereversed")
def run(raw): return 1
"""


@pytest.fixture(scope="module")
def loud(local_ws, tmp_path_factory):
    """A service whose log is long and has colours and a bidirectional override."""
    from azureml.core import Model
    from azureml.core.webservice import AciWebservice

    config = make_inference_config(tmp_path_factory.mktemp("loud"), LOUD)
    service = Model.deploy(local_ws, "loud", [], config, AciWebservice.deploy_configuration())
    service.wait_for_deployment()
    yield service
    service.delete()


def test_long_log_is_marked_as_cut_and_its_escape_sequences_are_neutralised(page, loud):
    page.go("#/services/service/loud/log", "#log")
    wait_until(lambda: "reversed" in page.browser.execute_script("return log.textContent"))
    text = page.browser.execute_script("return log.textContent")
    assert "red \N{MATHEMATICAL LEFT ANGLE BRACKET}U+202E" in text
    assert "\x1b" not in text
    assert "line 10\n" not in text
    assert page.wait("#log-cut").text.startswith("Earlier lines")


def test_link_opened_with_ctrl_opens_a_working_tab(page, loud):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = page.browser
    first = browser.current_window_handle
    page.go("#/services")
    link = page.wait("article a[href='#/services/service/loud']")
    ActionChains(browser).key_down(Keys.CONTROL).click(link).key_up(Keys.CONTROL).perform()
    wait_until(lambda: len(browser.window_handles) == 2)
    [second] = set(browser.window_handles) - {first}
    browser.switch_to.window(second)
    try:
        wait_until(lambda: browser.title == "loud \N{MIDDLE DOT} Local workspace")
    finally:
        browser.close()
        browser.switch_to.window(first)


def test_page_does_not_overflow_at_double_text_size(page, loud):
    browser, size = page.browser, page.browser.get_window_size()
    browser.set_window_size(500, 900)
    browser.execute_script("document.documentElement.style.fontSize = '200%'")
    try:
        for place in ("#/services", "#/services/service/loud", "#/services/service/loud/log"):
            page.go(place)
            wide = page.run(OVERFLOW)
            assert wide == [], place
    finally:
        browser.execute_script("document.documentElement.style.fontSize = ''")
        browser.set_window_size(size["width"], size["height"])


# Opening a link


def test_link_opens_the_page_only_once(page, browser, local_home):
    link = local.portal_link(local_home)
    first = browser.current_window_handle
    for expected in ("Services", "used before"):
        browser.switch_to.new_window("tab")
        browser.get(link)
        wait_until(lambda words=expected: words in page.text())
        assert "code" not in browser.current_url
        browser.close()
        browser.switch_to.window(first)


def test_page_cannot_be_framed_by_another_origin(page, browser):
    class Attacker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<title>attacker</title><iframe src={page.address}>".encode())

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Attacker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(f"http://127.0.0.1:{server.server_port}/")
    rejected = wait_until(
        lambda: [e for e in browser.get_log("browser") if "frame" in e["message"]]
    )
    browser.switch_to.frame(0)
    assert "Services" not in browser.page_source
    browser.close()
    browser.switch_to.window(first)
    server.shutdown()
    server.server_close()
    assert rejected


# Lists and logs


def test_services_models_and_environments_are_listed(page, digits):
    page.go("#/services")
    shown = page.text("[data-key='service/digits']")
    assert digits.scoring_uri in shown
    assert "Healthy" in shown
    page.go(SERVICE, "table")
    assert "sklearn_mnist:1" in page.text("table")
    page.go("#/models", "#model-sklearn_mnist")
    assert "Version 1" in page.text("#model-sklearn_mnist")
    page.go("#/environments")
    assert page.text("h1") == "Environments"


def test_hostile_tag_is_shown_as_text(page):
    for place, selector in ((SERVICE, ".facts"), ("#/models", "#model-sklearn_mnist")):
        page.go(place, selector)
        assert page.text(selector).count(HOSTILE) == 2
        assert not page.all("main img")


def test_log_view_follows_new_lines(page, digits):
    page.go(f"{SERVICE}/log", "#log")
    wait_until(lambda: page.text("#log"))
    before = page.text("#log").count("POST /score")
    page.run("document.querySelector('#log').scrollTop = 0")
    digits.run('{"data": []}')
    wait_until(lambda: page.text("#log").count("POST /score") > before)
    end = "const log = document.querySelector('#log'); return log.scrollTop + log.clientHeight"
    assert page.run(f"{end} >= log.scrollHeight - 2")


def test_failed_deployment_shows_its_error(page, local_ws, registered, tmp_path):
    from azureml.core import Model
    from azureml.core.webservice import AciWebservice
    from weights_service import make_inference_config

    script = "def init():\n    raise RuntimeError('<b>no luck</b>')\n\ndef run(raw):\n    pass\n"
    service = Model.deploy(
        local_ws,
        "failing",
        [registered],
        make_inference_config(tmp_path, script),
        AciWebservice.deploy_configuration(1, 1),
    )
    try:
        page.go("#/services/service/failing/log")
        failure = page.text("[role=alert]")
        assert "RuntimeError: <b>no luck</b>" in failure
        assert page.text().index("no luck") < page.text().index("Follow new lines")
    finally:
        service.delete()


# Scoring


def test_drawn_digit_is_scored_and_labelled(page):
    page.go(f"{SERVICE}/try", ".pad")
    page.choose("draw")
    for stroke, label in ((seven(), "7"), (zero(), "0")):
        page.draw(stroke)
        wait_until(lambda wanted=label: page.text(".label") == wanted)
        page.click("Clear")
        wait_until(lambda: page.text(".label") == NO_LABEL)


def test_digit_can_be_drawn_by_keyboard(page):
    from selenium.webdriver import Keys

    page.go(f"{SERVICE}/try", ".pad")
    page.choose("draw")
    page.wait(".pad").send_keys(Keys.UP * 9 + " " + Keys.DOWN * 18 + " ")
    wait_until(lambda: page.text(".label") == "1")
    page.wait(".pad").send_keys(Keys.DELETE)
    wait_until(lambda: page.text(".label") == NO_LABEL)


def test_drawn_image_is_normalized_like_mnist(page):
    module = f"import('{page.address}extension/pad.js')"
    requested = (
        f"const [strokes, done] = arguments; {module}.then((pad) => done(pad.prepare(strokes)))"
    )
    small = [(x / 3, y / 3) for x, y in zero()]
    for stroke in (zero(), small):
        image = page.browser.execute_async_script(requested, [stroke])
        rows = [image[start : start + 28] for start in range(0, 784, 28)]
        inked = [number for number, row in enumerate(rows) if max(row) > 0]
        assert inked[-1] - inked[0] + 1 in (19, 20, 21)
        for position in (lambda i: i % 28, lambda i: i // 28):
            moment = sum(value * position(i) for i, value in enumerate(image))
            assert moment / sum(image) == pytest.approx(14, abs=0.1)
        assert len({round(value, 3) for value in image}) > 20  # grey at the edges


def test_misclassified_test_digit_is_red_and_inverted(page):
    page.go(f"{SERVICE}/try")
    page.choose("digits")
    page.wait(".digit")

    def score_until_one_is_wrong():
        page.click("Another thirty")
        page.click("Score all thirty")
        wait_until(lambda: len(page.all(".digit.scored")) == 30)
        return page.all(".digit.wrong")

    wrong = wait_until(score_until_one_is_wrong)[0]
    right = page.wait(".digit.scored:not(.wrong)")
    corner = """return arguments[0].querySelector("canvas").getContext("2d")
        .getImageData(0, 0, 1, 1).data[0]"""
    assert (page.run(corner, wrong), page.run(corner, right)) == (0, 255)
    colour = "return getComputedStyle(arguments[0].querySelector('.caption')).color"
    red, green, blue = map(int, re.findall(r"\d+", page.run(colour, wrong)))
    assert red > 2 * max(green, blue)
    assert "wrong" in wrong.get_attribute("aria-label")


def test_json_request_is_sent_and_shown_as_curl_and_python(page, digits):
    page.go(f"{SERVICE}/try")
    page.choose("json")
    box = page.wait("#json")
    wait_until(lambda: box.get_attribute("value"))
    box.clear()
    box.send_keys('{"data": []}')
    page.click("Send")
    wait_until(lambda: "200 OK" in page.text("#answer"))
    assert "[]" in page.text("#answer")
    shown = page.text("#request")
    assert digits.scoring_uri in shown
    assert 'Bearer $KEY"' in shown
    page.wait("input[value=Python]").click()
    program = page.text("#request")
    compile(program, "shown", "exec")
    assert not any(key in page.browser.page_source for key in digits.get_keys())


# Accessibility

PLACES = ["#/services", SERVICE, f"{SERVICE}/try", f"{SERVICE}/log", "#/models", "#/environments"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_telephone_with_readable_contrast(page, scheme):
    try:
        for width in (320, 390, 1280):
            page.look_as(width, scheme)
            for place in PLACES:
                page.go(place)
                assert page.run("return document.documentElement.scrollWidth") <= width, place
                assert page.run(CONTRAST) == [], place
    finally:
        page.look_as(1280)


def test_controls_have_accessible_names(page):
    for place in PLACES:
        page.go(place)
        tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = ("button", "link", "textbox", "radio", "checkbox", "combobox", "application", "log")
        controls = [node for node in tree if node.get("role", {}).get("value") in roles]
        assert controls
        assert [node for node in controls if not node["name"]["value"]] == []
        assert len(page.all("h1")) == 1


def test_idle_page_polls_rarely_and_gets_fast_answers(page, endpoint):
    control_plane = psutil.Process(endpoint.pid)

    def watch(seconds: float) -> tuple[float, list[float]]:
        """The share of a core that the control plane uses, and the duration of each request."""
        before = control_plane.cpu_times()
        page.run("performance.clearResourceTimings()")
        time.sleep(seconds)
        after = control_plane.cpu_times()
        took = "return performance.getEntriesByType('resource').map((entry) => entry.duration)"
        used = after.user + after.system - before.user - before.system
        return used / seconds, page.run(took)

    page.go("#/services")
    seen, requests = watch(6)
    assert 1 <= len(requests) <= 2
    assert max(requests) < 5000  # milliseconds
    page.run("Object.defineProperty(document, 'hidden', {value: true})")
    unseen, requests = watch(6)
    assert len(requests) == 0
    print("SEEN", seen, unseen)
    assert seen - unseen < 0.01
