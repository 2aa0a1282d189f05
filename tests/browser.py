"""Drive Chromium with the portal page of a local workspace."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from polling import wait_until

Stroke = list[tuple[float, float]]
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
)  # fmt: skip


def open_browser(folder: Path) -> Any:
    """Start Chromium with `folder`, new and empty, for its profile.

    Raises
    ------
    FileNotFoundError
        If Chromium or its driver is not installed.
    """
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise FileNotFoundError("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


# Scripts that return what is wrong with the document: its texts of low contrast, its elements that
# end beyond the right edge.
CONTRAST = r"""
const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
const light = (colour) => parse(colour).slice(0, 3).map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return parse(colour)[3] === 0 ? ground(node.parentElement) : colour;
};
const ratio = (node) => {
  const [a, b] = [getComputedStyle(node).color, ground(node)].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const hasText = (node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
return [...document.querySelectorAll("body *")]
  .filter((node) => hasText(node) && node.getClientRects().length)
  .filter((node) => !node.closest("[disabled], .visually-hidden, .skip, noscript"))
  .filter((node) => ratio(node) < 4.5).map((node) => node.outerHTML.slice(0, 99));
"""
OVERFLOW = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width) return [];
return [...document.querySelectorAll("body *")].filter((each) =>
  each.getBoundingClientRect().right > width + 1).map((each) => each.outerHTML);
"""


class Page:
    """The portal page in one authenticated browser tab."""

    def __init__(self, browser, link: str) -> None:
        self.browser = browser
        browser.get(link)
        self.wait("nav a")
        self.address = browser.current_url.partition("#")[0]

    def go(self, place: str, selector: str = "h1"):
        """Navigate to the hash `place` and wait until `selector` is shown."""
        self.browser.execute_async_script(
            """const [place, done] = arguments;
            if (location.hash === place) return done();
            addEventListener("hashchange", () => setTimeout(done), {once: true});
            location.hash = place;""",
            place,
        )
        return self.wait(selector)

    def all(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def wait(self, selector: str):
        return wait_until(lambda: self.all(selector))[0]

    def text(self, selector: str = "main") -> str:
        return self.wait(selector).text

    def click(self, words: str) -> None:
        self.browser.find_element("xpath", f"//button[normalize-space()='{words}']").click()

    def choose(self, mode: str) -> None:
        self.wait(f"input[name=mode][value={mode}]").click()

    def run(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def look_as(self, width: int, scheme: str = "light", height: int = 800) -> None:
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def draw(self, points: Stroke) -> None:
        """Draw a stroke with the mouse."""
        from selenium.webdriver import ActionChains

        pad = self.wait(".pad")
        self.run("arguments[0].scrollIntoView({block: 'center'})", pad)
        hand, width = ActionChains(self.browser, duration=5), pad.size["width"]
        for number, (x, y) in enumerate(points):
            hand.move_to_element_with_offset(pad, (x - 0.5) * width, (y - 0.5) * width)
            if number == 0:
                hand.click_and_hold()
        hand.release().perform()


# Digits as a hand would draw them: points in [0, 1] from the upper left


def seven() -> Stroke:
    return [(0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.6, 0.45), (0.5, 0.65), (0.42, 0.85)]


def zero() -> Stroke:
    angles = [math.radians(angle) for angle in range(-90, 285, 15)]
    return [(0.5 + 0.2 * math.cos(a), 0.5 + 0.32 * math.sin(a)) for a in angles]


def three() -> Stroke:
    upper = [math.radians(angle) for angle in range(200, 465, 15)]
    lower = [math.radians(angle) for angle in range(-85, 165, 15)]
    return [
        *((0.48 + 0.17 * math.cos(a), 0.34 + 0.16 * math.sin(a)) for a in upper),
        *((0.48 + 0.20 * math.cos(a), 0.66 + 0.18 * math.sin(a)) for a in lower),
    ]
