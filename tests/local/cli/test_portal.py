"""The command ``portal``."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import webbrowser
from types import SimpleNamespace

import pytest
import requests
from polling import wait_until
from terminal import LOCAL

from mnist_deploy.local.cli import portal


@pytest.mark.processes
def test_portal_is_served_until_ctrl_c(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_DEPLOY_HOME", str(tmp_path / "home"))
    command = [*LOCAL, "portal", "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as verb, requests.Session() as session:
        address, _, code = verb.stdout.readline().strip().partition("#code=")
        assert "works once" in verb.stderr.readline()
        session.trust_env = False
        assert "<title>Local workspace</title>" in session.get(address, timeout=10).text
        pad = session.get(f"{address}extension/pad.js")
        assert "text/javascript" in pad.headers["Content-Type"]
        origin = {"Origin": address.rstrip("/")}
        answer = session.post(f"{address}api/token", json={"code": code}, headers=origin)
        assert answer.json()["token"]
        verb.send_signal(signal.SIGINT)
        assert verb.wait(20) == 128 + signal.SIGINT
    wait_until(lambda: not (tmp_path / "home/run/endpoint.json").exists())


@pytest.mark.parametrize(
    ("options", "display", "opened"),
    [({}, ":0", 1), ({}, "", 0), ({"no_browser": True}, ":0", 0)],
)
def test_browser_is_opened_only_with_a_display(monkeypatch, capsys, options, display, opened):
    links = []
    ended = SimpleNamespace(url="https://127.0.0.1:1", pid=2**31 - 1)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", links.append)
    monkeypatch.setattr(portal, "start", lambda: ended)
    monkeypatch.setattr(portal, "portal_link", lambda **_: "http://127.0.0.1:2/#code=x")
    assert (
        portal.open_portal(argparse.Namespace(**({"no_browser": False, "port": 3} | options))) == 1
    )
    assert len(links) == opened
    messages = capsys.readouterr()
    assert messages.out == "http://127.0.0.1:2/#code=x\n"
    assert "another port" in messages.err
