"""Who may look: a code works once, within a minute; the page exchanges it for a tab's token."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time

CODE_LIFETIME = 60.0  # seconds


class Codes:
    """Codes that stand for something, each for one use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: dict[str, tuple[float, tuple[str, ...]]] = {}

    def issue(self, *subject: str) -> str:
        """A new code for `subject`."""
        code = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._issued = {key: kept for key, kept in self._issued.items() if kept[0] > now}
            self._issued[digest(code)] = now + CODE_LIFETIME, subject
        return code

    def redeem(self, code: str) -> tuple[str, ...] | None:
        """What a code stands for; None if it is unknown, too old or was used before."""
        with self._lock:
            ends, subject = self._issued.pop(digest(code), (0.0, ()))
        return subject if time.monotonic() < ends else None


class Tokens:
    """The tokens of the open tabs: each may list, read logs, score and download.

    Only their digests are kept, so that the time of a look-up tells nothing about them.
    """

    def __init__(self) -> None:
        self._digests: set[str] = set()

    def issue(self) -> str:
        token = secrets.token_urlsafe(32)
        self._digests.add(digest(token))
        return token

    def admit(self, token: str) -> bool:
        return digest(token) in self._digests


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
