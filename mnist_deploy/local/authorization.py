"""Authorization of scoring requests by keys and tokens, for scoring processes and routers."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

# Messages for a request without a valid key: from a container, and from a front end.
CONTAINER_KEY_REQUIRED = (
    "This service requires a key or a token: send the header 'Authorization: Bearer <key>' with a "
    "key that get_keys() returns, or with a token that has not expired."
)
ENDPOINT_KEY_REQUIRED = (
    "This endpoint requires a key or a token: send the header 'Authorization: Bearer <key>'."
)


def hash_token(token: str) -> str:
    """The hash under which an issued token is stored and looked up."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_authorized(
    authorization: str, keys: Sequence[str] | None, tokens: Mapping[str, float]
) -> bool:
    """Whether a header has a key, or a token that has not expired; or neither is required.

    Parameters
    ----------
    authorization : str
        The header ``Authorization`` of the request, ``Bearer <key>``.
    keys : sequence of str, or None
        None: requests need neither a key nor a token.
    tokens : mapping of str to float
        Expiry of each token in seconds since the epoch, by its `hash_token`.
    """
    if keys is None:
        return True
    scheme, _, offered = authorization.partition(" ")
    sent = offered.encode("utf-8", "surrogateescape")
    # All keys are compared, so that the time does not depend on the result of a comparison.
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    if tokens:
        matches.append(tokens.get(hash_token(offered), 0.0) > time.time())
    return scheme.lower() == "bearer" and any(matches)
