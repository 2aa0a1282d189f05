"""The command ``portal``: open the page of the local workspace in the browser."""

from __future__ import annotations

import argparse
import time
import webbrowser

import psutil

from .. import portal_link, start
from ..host import terminal
from .session import report
from .tutorial import find_tutorial

CHECK_INTERVAL = 0.5  # seconds


def open_portal(options: argparse.Namespace) -> int:
    """Print a link to the page and open it; the workspace runs at least as long as this command."""
    address = start()
    link = portal_link(files=find_tutorial().page, port=options.port)
    if options.port and f":{options.port}/" not in link:
        report("The page is served already, on another port.")
    print(link, flush=True)
    if not options.no_browser and terminal.has_display():
        webbrowser.open(link)
    report("The link works once, within a minute; run this again for another. Ctrl-C ends this.")
    while psutil.pid_exists(address.pid):
        time.sleep(CHECK_INTERVAL)
    report("The local workspace was stopped.")
    return 1
