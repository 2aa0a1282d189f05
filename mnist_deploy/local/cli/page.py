"""The verb that opens the page of the local workspace in the browser."""

from __future__ import annotations

import argparse
import os
import sys
import time
import webbrowser

import psutil

from .. import portal_link, start
from .session import say
from .tutorial import find_tutorial


def open_page(options: argparse.Namespace) -> int:
    """Print a link to the page and open it; the workspace stays at least as long as this runs."""
    endpoint = start()
    link = portal_link(files=find_tutorial().page, port=options.port)
    if options.port and f":{options.port}/" not in link:
        say("It is served already, at another port.")
    print(link, flush=True)
    if not options.no_browser and has_screen():
        webbrowser.open(link)
    say("The link works once, within a minute; for another, run this again. Ctrl-C ends it.")
    while psutil.pid_exists(endpoint.pid):
        time.sleep(0.5)
    say("The local workspace was stopped by somebody else.")
    return 1


def has_screen() -> bool:
    """Whether a browser would open in a window; one in this terminal would hide the link."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
