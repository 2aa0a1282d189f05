"""Create the README's picture of the page: ``python tests/portal_picture.py notebooks/portal.png``.

Needs Debian's packages chromium and chromium-driver. The workspace is a new one in a temporary
folder, with the tutorial's model and service.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from browser import Page, open_browser, three
from matplotlib import image
from polling import wait_until

import mnist_deploy as md
from mnist_deploy import local
from mnist_deploy.tutorial import LOCAL_WORKSPACE

SERVICE = "#/services/service/sklearn-mnist-svc3"
HEIGHT, GAP = 840, 32  # pixels


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MNIST_DEPLOY_HOME"] = f"{folder}/home"
        ws = md.connect_workspace(local=True)
        model = md.prepare_workspace(ws, f"{folder}/data")
        config = md.build_inference_config(md.fetch_environment(ws))
        service = md.deploy_to_aci(ws, model, config, md.build_aci_config())
        with md.closing_service(service), open_browser(Path(folder) / "chromium") as browser:
            image.imsave(
                file,
                beside(*shots(Page(browser, local.portal_link(files=LOCAL_WORKSPACE["page"])))),
            )
        local.stop()


def shots(page: Page) -> list[np.ndarray]:
    """Return two screenshots: a drawn digit (desktop, light), test digits (phone, dark)."""
    page.browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    page.look_as(1100, height=HEIGHT)
    page.go(f"{SERVICE}/try", ".pad")
    page.draw(three())
    wait_until(lambda: page.text(".label") == "3")
    page.run("scrollTo(0, 0)")
    light = page.browser.get_screenshot_as_png()
    page.look_as(390, "dark", height=HEIGHT)
    page.choose("digits")
    page.wait(".digit")

    def score_until_some_are_wrong() -> bool:
        page.click("Another thirty")
        page.click("Score all thirty")
        wait_until(lambda: len(page.all(".digit.scored")) == 30)
        return len(page.all(".digit.wrong")) > 2

    wait_until(score_until_some_are_wrong)
    page.run("document.querySelector('.tabs').scrollIntoView()")
    return [image.imread(io.BytesIO(png)) for png in (light, page.browser.get_screenshot_as_png())]


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Join pictures of shape (height, width, 3 or 4) side by side, with a transparent gap."""
    gap = np.zeros((pictures[0].shape[0], GAP, 4))
    opaque = [np.dstack([each[..., :3], np.ones(each.shape[:2])]) for each in pictures]
    return np.hstack([opaque[0], *(part for each in opaque[1:] for part in (gap, each))])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
