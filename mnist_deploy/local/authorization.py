"""Whether a scoring request is authorized: for containers that answer themselves, and routers."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

# What a request without them is answered, by a container and by a front end.
CONTAINER_KEY_REQUIRED = (
    "This service requires a key or a token: send the header 'Authorization: Bearer <key>' with a "
    "key that get_keys() returns, or with a token that has not expired."
)
ENDPOINT_KEY_REQUIRED = (
    "This endpoint requires a key or a token: send the header 'Authorization: Bearer <key>'."
)


def hash_token(token: str) -> str:
    """The form in which an issued token is kept and looked up."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_authorized(
    authorization: str, keys: Sequence[str] | None, tokens: Mapping[str, float]
) -> bool:
    """Whether a header has a key, or a token that has not expired; or neither is required.

    Parameters
    ----------
    authorization : str
        The header of the request, ``Bearer <key>``.
    keys : sequence of str, or None
        None: the request needs neither a key nor a token.
    tokens : mapping of str to float
        When each token expires, in seconds since the epoch, by its `hash_token`.
    """
    if keys is None:
        return True
    scheme, _, offered = authorization.partition(" ")
    sent = offered.encode("utf-8", "surrogateescape")
    # Every key is compared, whatever the first comparison gave.
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    if tokens:
        matches.append(tokens.get(hash_token(offered), 0.0) > time.time())
    return scheme.lower() == "bearer" and any(matches)
