"""A control channel: lines of JSON in both directions over a socket between two processes."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

READ_SIZE = 65536  # bytes
RETRY_INTERVAL = 0.01  # seconds until the next attempt to send to a process that does not read


class ControlSocket:
    """One end of a control channel; only `send` waits for the other process, up to a time-out.

    Parameters
    ----------
    connection : socket
        One socket of a pair of stream sockets. Each process has one, and detects the end of the
        other process by the end of the connection.
    max_line : int, optional
        The maximum of bytes in a line; a longer line is split.

    Attributes
    ----------
    is_open : bool
        Whether further lines may arrive.
    """

    def __init__(self, connection: socket.socket, max_line: int | None = None) -> None:
        connection.setblocking(False)
        self.is_open = True
        self._connection = connection
        self._max_line = max_line
        self._unread = self._unsent = b""
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self.is_open = False
        self._connection.close()

    def read(self) -> list[bytes]:
        """Return the received lines."""
        lines: list[bytes] = []
        while self.is_open:
            try:
                data = self._connection.recv(READ_SIZE)
            except BlockingIOError:
                break
            except OSError:  # the other process was killed
                data = b""
            self.is_open = bool(data)
            *whole, self._unread = (self._unread + data).split(b"\n")
            lines += whole
            if self._max_line is not None and len(self._unread) > self._max_line:
                lines.append(self._unread)
                self._unread = b""
        return lines

    def send(self, line: bytes, seconds: float) -> bool:
        """Send a line; False if the other process does not read all of it within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._sending:
            self._unsent += line
        while not self._flush():
            if time.monotonic() > deadline:
                return False
            time.sleep(RETRY_INTERVAL)
        return True

    def offer(self, **message: Any) -> None:
        """Send a message, or drop it if the other process has not read earlier messages."""
        if not self._flush():
            return
        line = json.dumps(message).encode() + b"\n"
        with self._sending:
            before, self._unsent = self._unsent, self._write(self._unsent + line)
            if len(self._unsent) == len(before + line):
                self._unsent = before

    def _flush(self) -> bool:
        """Send the unsent rest of earlier lines; return whether all of it was sent."""
        with self._sending:
            self._unsent = self._write(self._unsent)
            return not self._unsent

    def _write(self, data: bytes) -> bytes:
        """Write to the socket and return the unsent rest; empty if the other process has ended."""
        try:
            while data:
                data = data[self._connection.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            return b""
        return b""
