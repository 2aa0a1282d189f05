"""The control channel to the container: policies and probes come in, reports go out.

When the control plane ends, the channel does, and with it this process.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..authorization import is_authorized
from ..control_socket import ControlSocket
from ..host import networking, processes, signals


@dataclass(frozen=True)
class AccessPolicy:
    """Which requests are answered; described where it is sent from, in ``core/container.py``."""

    keys: list[str] | None
    tokens: dict[str, float]
    public: bool

    def is_authorized(self, authorization: str) -> bool:
        return is_authorized(authorization, self.keys, self.tokens)


class ControlChannel:
    """Reads a socket in a thread, and kills the process and its descendants at its end.

    However busy the script may be: the thread waits, and no signal can be held back. The
    thread ``control channel`` lives as long as the process.

    Parameters
    ----------
    connection : socket
        To the container.
    tag : str
        The process tag: every process that this one starts has it in its environment.

    Attributes
    ----------
    access : AccessPolicy
        Of the last line that had one.
    on_change : callable
        Called in the thread, with the line's number, when `access` has changed: it confirms.
    on_ping : callable
        Called in the thread with the number of a liveness probe: it answers.
    on_drain : callable
        Called in the thread: the process is to answer what has arrived, and to end.
    """

    access: AccessPolicy

    def __init__(self, connection: socket.socket, tag: str) -> None:
        self.on_change: Callable[[int], Any] = self.confirm
        self.on_ping: Callable[[int], Any] = lambda number: None  # init() still runs
        self.on_drain: Callable[[], Any] = lambda: None
        self._socket = ControlSocket(connection)
        self._tag = tag
        while not hasattr(self, "access"):
            self._read()
        threading.Thread(target=self._listen, daemon=True, name="control channel").start()

    def send(self, **message: Any) -> None:
        """Send the container a line; dropped if the container does not read."""
        self._socket.offer(**message)

    def confirm(self, number: int) -> None:
        """Report that the policy of that number counts from now on."""
        self.send(configured=number)

    def _listen(self) -> None:
        # Signals are for the main thread: that of the scoring time-out must interrupt the script.
        signals.block_signals()
        while True:
            self._read()

    def _read(self) -> None:
        """Wait for lines and apply them; at the end of the channel end the process tree."""
        networking.wait_readable([self._socket], None)
        for line in self._socket.read():
            self._apply(line)
        if not self._socket.is_open:
            from ..process_tree import kill_process_tree  # imports psutil, needed only now

            kill_process_tree(self._tag, os.getpid())
            processes.kill_own_group()

    def _apply(self, line: bytes) -> None:
        message = json.loads(line)
        if "ping" in message:
            self.on_ping(message["ping"])
        elif "drain" in message:
            self.on_drain()
        else:
            number = message.pop("number")
            self.access = AccessPolicy(**message)
            self.on_change(number)
