"""What the operating systems do differently; these tests run on each of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import psutil
import pytest
from polling import wait_until

from mnist_deploy.local.host import system

LOCK = "from mnist_deploy.local.host import system; system.lock(open({!r}), shared={}, wait=False)"

ECHO = """
import sys
from mnist_deploy.local.host import system
sockets = system.take_sockets()
sockets["control"].send(sys.argv[1].encode())
sockets["listener"].accept()[0].send(b"hello")
assert system.wait_readable([sockets["control"]], 60)
sys.exit(7)
"""
GRANDCHILD = """
import subprocess, sys, time
from mnist_deploy.local.host import system
sockets = system.take_sockets()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
sockets["control"].send(str(child.pid).encode())
time.sleep(300)
"""
ALARM_SIGNALS = [signal.SIGINT, *filter(None, [getattr(signal, "SIGALRM", None)])]


def locks_elsewhere(file, *, shared: bool = False) -> bool:
    """Whether another process can lock a file."""
    command = [sys.executable, "-c", LOCK.format(str(file), shared)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0 or "BlockingIOError" in run.stderr, run.stderr
    return run.returncode == 0


@pytest.mark.processes
def test_lock_excludes_other_processes_and_leaves_the_content_readable(tmp_path):
    file = tmp_path / "lock"
    file.write_text("content")
    with open(file) as locked:
        system.lock(locked)
        assert not locks_elsewhere(file)
        assert file.read_text() == "content"
        system.lock(locked, shared=True)
        assert not locks_elsewhere(file)
        assert locks_elsewhere(file, shared=True)
    assert locks_elsewhere(file)


def test_locked_file_is_removed(tmp_path):
    file = tmp_path / "lock"
    file.touch()
    descriptor = os.open(file, os.O_RDONLY)
    system.lock(descriptor)
    system.remove_locked(file, descriptor)
    assert not file.exists()


@pytest.mark.processes
def test_processes_append_to_one_log(tmp_path):
    file = tmp_path / "log"
    for number in range(2):
        with system.open_log(file) as log:
            log.write(b"own %d\n" % number)
            log.flush()
            command = [sys.executable, "-c", f"print('child {number}')"]
            subprocess.run(command, stdout=log, check=True)
    lines = file.read_text().split("\n")
    assert lines == ["own 0", "child 0", "own 1", "child 1", ""]


@pytest.mark.processes
def test_child_gets_sockets_and_notices_the_end_of_its_parent(tmp_path):
    (tmp_path / "echo_child.py").write_text(ECHO)
    own, its = socket.socketpair()
    with system.listen() as listener:
        with its:
            child = system.start_child(
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
        child = system.start_child("parent_child", [], {"control": its}, cwd=tmp_path)
        own.settimeout(60)
        grandchild = psutil.Process(int(own.recv(100)))
        system.kill_group(child)
        child.wait(60)
        wait_until(lambda: not grandchild.is_running() or grandchild.status() == "zombie")


def test_alarm_interrupts_python_code_and_sleep():
    def raise_timeout(*_: object) -> None:
        raise TimeoutError

    before = {number: signal.getsignal(number) for number in ALARM_SIGNALS}
    system.on_alarm(raise_timeout)
    try:
        for work in (lambda: time.sleep(30), spin):
            system.set_alarm(0.05)
            with pytest.raises(TimeoutError):
                work()
            system.set_alarm(0)
        system.set_alarm(20)
        assert 0 < system.set_alarm(0) <= 20
        assert system.set_alarm(0) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def spin() -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        pass


def test_port_is_not_shared():
    with system.listen() as listener, pytest.raises(OSError, match=r"in use|10048"):
        system.listen(listener.getsockname()[1])


def test_private_address_is_connected_to(tmp_path):
    listener, address = system.listen_privately(Path(system.socket_folder()))
    listener.settimeout(20)

    async def connect() -> None:
        await system.connect_privately(asyncio.Protocol, address)

    with asyncio.Runner(loop_factory=system.new_event_loop) as runner:
        runner.run(connect())
        listener.accept()[0].close()
    system.close_privately(listener, address)


def test_readable_sockets_are_awaited():
    one, other = socket.socketpair()
    with one, other:
        assert not system.wait_readable([one, other], 0.01)
        one.send(b"x")
        assert system.wait_readable([one, other], 20)
    assert not system.wait_readable([], 0.01)


@pytest.mark.skipif(sys.platform != "win32", reason="the limit is that of Windows")
def test_path_beyond_the_limit_of_windows_is_explained():
    error = FileNotFoundError(2, "No such file or directory", "C:\\" + "n" * 300)
    assert "The path has 303 characters, and Windows permits 259" in system.explain(error)
    assert system.explain(OSError("no space")) == "no space"


@pytest.mark.skipif(sys.platform != "win32", reason="other systems remove and replace open files")
def test_open_file_is_replaced_after_it_was_closed_and_left_where_it_stays_open(
    tmp_path, monkeypatch
):
    part, file = tmp_path / "part", tmp_path / "file"
    file.write_text("old")
    part.write_text("new")
    reader = open(file)  # noqa: SIM115
    threading.Timer(0.5, reader.close).start()
    system.replace_file(part, file)
    assert file.read_text() == "new"
    monkeypatch.setattr(system, "REMOVE_TIMEOUT", 0.1)
    with open(file):
        system.remove_file(file)
        assert file.exists()
    system.remove_file(file)
    system.remove_file(file)
    assert not file.exists()


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "win32", reason="other systems have no launcher")
def test_process_of_a_virtual_environment_has_the_pid_of_its_handle(tmp_path, monkeypatch):
    """The ``python.exe`` of a virtual environment starts the base interpreter and waits for it."""
    venv.create(tmp_path / "venv", system_site_packages=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "Scripts" / "python.exe"))
    show = "import os, sys; print(os.getpid(), sys.executable, os.getenv('__PYVENV_LAUNCHER__'))"
    process = system.start_background(["-c", show], stdout=subprocess.PIPE, text=True)
    answer = process.communicate(timeout=60)[0]
    assert answer.split() == [str(process.pid), sys.executable, "None"]


@pytest.mark.skipif(sys.platform != "win32", reason="cmd.exe is the shell of Windows")
def test_lines_for_a_posix_shell_are_run_by_cmd():
    code = "import sys; print(sys.argv[1:])"
    lines = f'python -c "{code}" C:\\a\\b \\\n "c d" && echo two\necho three'
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = system.start_command(
        ["/bin/sh", "-c", lines],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    output = process.communicate(timeout=60)[0].decode().split("\r\n")
    assert [line.strip() for line in output] == [r"['C:\\a\\b', 'c d']", "two", "three", ""]
