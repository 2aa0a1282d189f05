"""Run ``python -m mnist_deploy.local`` as a subprocess, or in a pseudo-terminal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LOCAL = (sys.executable, "-m", "mnist_deploy.local")


def run(*arguments: str, text: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*LOCAL, *arguments], input=text, cwd=cwd, capture_output=True, text=True, timeout=120
    )


def execute(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return run("exec", "--bare", "--", *command, cwd=cwd)


def runs_from(home: Path) -> list[int]:
    """Return the pids of the processes that belong to the local workspace in `home`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(word.startswith(str(home)) for word in words):
            found.append(process.info["pid"])
    return found


class Terminal:
    """A command in a pseudo-terminal, so that Ctrl-C reaches it as from a keyboard."""

    def __init__(self, *command: str) -> None:
        import pty  # which Windows does not have

        self.output = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def read_until(self, pattern: str, seconds: float = 60) -> re.Match:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.output)):
            assert time.monotonic() < deadline, self.output
            if not self._read():
                pytest.fail(f"the command ended before {pattern!r} was seen:\n{self.output}")
        return found

    def end(self) -> int:
        """Read the output to its end and return the exit status."""
        while self._read():
            pass
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        try:
            if select.select([self._screen], [], [], 0.2)[0]:
                chunk = os.read(self._screen, 65536)
                self.output += chunk.decode(errors="replace")
                return bool(chunk)
        except OSError:  # Linux: the other end is closed
            return False
        return True
