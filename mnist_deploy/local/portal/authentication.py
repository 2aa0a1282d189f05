"""Authentication of the page: a tab exchanges the one-time code of a link for a token."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time

from aiohttp.web import BaseRequest

from ..wsgi import split_target

CODE_LIFETIME = 60.0  # seconds
MAX_UNTRUSTED_BODY = 1024  # bytes: a code in JSON


class Codes:
    """One-time codes; each code refers to a subject, for instance a model to download."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: dict[str, tuple[float, tuple[str, ...]]] = {}

    def issue(self, *subject: str) -> str:
        """Return a new code for `subject`."""
        code = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._issued = {key: kept for key, kept in self._issued.items() if kept[0] > now}
            self._issued[digest(code)] = now + CODE_LIFETIME, subject
        return code

    def redeem(self, code: str) -> tuple[str, ...] | None:
        """Return the subject of a code; None if the code is unknown, expired or already used."""
        with self._lock:
            expiry, subject = self._issued.pop(digest(code), (0.0, ()))
        return subject if time.monotonic() < expiry else None

    def is_known(self, code: str) -> bool:
        """Whether a code was issued and not redeemed; it may be expired. Does not redeem it."""
        with self._lock:
            return digest(code) in self._issued


class Tokens:
    """The tokens of open tabs, which authorize listings, logs, scoring and downloads.

    Only digests are stored, so the duration of a look-up does not reveal a token.
    """

    def __init__(self) -> None:
        self._digests: set[str] = set()

    def issue(self) -> str:
        token = secrets.token_urlsafe(32)
        self._digests.add(digest(token))
        return token

    def is_valid(self, token: str) -> bool:
        return digest(token) in self._digests


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def bearer_token(authorization: str) -> str:
    return authorization.removeprefix("Bearer ")


def find_body_limit(received: BaseRequest, codes: Codes, tokens: Tokens) -> int | None:
    """Return the limit of a request's body, see :data:`mnist_deploy.local.listener.BodyLimit`."""
    path, _, _ = split_target(received.raw_path)
    if path.startswith("/download/"):
        is_trusted = codes.is_known(path.removeprefix("/download/"))
    else:
        is_trusted = tokens.is_valid(bearer_token(received.headers.get("Authorization", "")))
    return None if is_trusted else MAX_UNTRUSTED_BODY
