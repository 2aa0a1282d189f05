"""Press Ctrl-C, or another key of the kind, for a command in a console of Windows.

``python console.py EVENT COMMAND ...`` starts the command in a new console, waits for its first
line, presses the key once, and prints all lines; the exit status is that of the command.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

CTRL_C = 0  # CTRL_BREAK_EVENT is 1, which wine 8 does not send


def press(event: int, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a console of its own and press a key after its first line."""
    return subprocess.run(
        [sys.executable, __file__, str(event), *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )


def main(event: str, *command: str) -> int:
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.FreeConsole()
    if not kernel32.AllocConsole():
        raise ctypes.WinError(ctypes.get_last_error())
    for number in (signal.SIGINT, signal.SIGBREAK):
        signal.signal(number, lambda *_: None)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(process.stdout.readline(), end="", flush=True)
    if not kernel32.GenerateConsoleCtrlEvent(int(event), 0):
        raise ctypes.WinError(ctypes.get_last_error())
    print(process.stdout.read(), end="", flush=True)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
