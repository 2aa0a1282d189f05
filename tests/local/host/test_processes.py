"""Children, their sockets and their ends; these tests run on each system."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest
from polling import wait_until

from mnist_deploy.local.host import networking, processes

ECHO = """
import sys
from mnist_deploy.local.host import networking, processes
sockets = processes.take_sockets()
sockets["control"].send(sys.argv[1].encode())
sockets["listener"].accept()[0].send(b"hello")
assert networking.wait_readable([sockets["control"]], 60)
sys.exit(7)
"""

GRANDCHILD = """
import subprocess, sys, time
from mnist_deploy.local.host import processes
sockets = processes.take_sockets()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
sockets["control"].send(str(child.pid).encode())
time.sleep(300)
"""


@pytest.mark.processes
def test_child_gets_sockets_and_notices_the_end_of_its_parent(tmp_path):
    (tmp_path / "echo_child.py").write_text(ECHO)
    own, its = socket.socketpair()
    with networking.listen() as listener:
        with its:
            child = processes.start_child(
                "echo_child", ["argument"], {"control": its, "listener": listener}, cwd=tmp_path
            )
        own.settimeout(60)
        assert own.recv(100) == b"argument"
        with socket.create_connection(listener.getsockname(), timeout=60) as client:
            assert client.recv(100) == b"hello"
    own.close()
    assert child.wait(60) == 7


@pytest.mark.processes
def test_group_of_a_child_is_killed(tmp_path):
    (tmp_path / "parent_child.py").write_text(GRANDCHILD)
    own, its = socket.socketpair()
    with own, its:
        child = processes.start_child("parent_child", [], {"control": its}, cwd=tmp_path)
        own.settimeout(60)
        grandchild = psutil.Process(int(own.recv(100)))
        processes.kill_group(child)
        child.wait(60)
        wait_until(lambda: not grandchild.is_running() or grandchild.status() == "zombie")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "win32", reason="other systems have no launcher")
def test_process_of_a_virtual_environment_has_the_pid_of_its_handle(tmp_path, monkeypatch):
    """The ``python.exe`` of a virtual environment starts the base interpreter and waits for it."""
    venv.create(tmp_path / "venv", system_site_packages=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "Scripts" / "python.exe"))
    show = "import os, sys; print(os.getpid(), sys.executable, os.getenv('__PYVENV_LAUNCHER__'))"
    process = processes.start_background(["-c", show], stdout=subprocess.PIPE, text=True)
    answer = process.communicate(timeout=60)[0]
    assert answer.split() == [str(process.pid), sys.executable, "None"]


@pytest.mark.skipif(sys.platform != "win32", reason="cmd.exe is the shell of Windows")
def test_lines_for_a_posix_shell_are_run_by_cmd():
    code = "import sys; print(sys.argv[1:])"
    lines = f'python -c "{code}" C:\\a\\b \\\n "c d" && echo two\necho three'
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = processes.start_command(
        ["/bin/sh", "-c", lines],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    output = process.communicate(timeout=60)[0].decode().split("\r\n")
    assert [line.strip() for line in output] == [r"['C:\\a\\b', 'c d']", "two", "three", ""]
