"""The bearer token of a control plane, and the secrets that are derived from the token."""

from __future__ import annotations

import datetime as dt
import hmac
import secrets

import jwt

TENANT = "00000000-0000-0000-0000-000000000001"
LIFETIME = dt.timedelta(days=365)


def create_token() -> str:
    """A JWT that the SDK can decode, signed with a random key, which makes it unguessable."""
    now = dt.datetime.now(dt.UTC)
    claims = {"iat": now, "exp": now + LIFETIME, "tid": TENANT, "oid": TENANT, "name": "local user"}
    return jwt.encode(claims, secrets.token_bytes(32), algorithm="HS256")


def derive(token: str, purpose: str) -> str:
    """A secret for `purpose`, derived from the token without revealing the token."""
    return hmac.new(token.encode(), purpose.encode(), "sha256").hexdigest()
