"""Whether a request may come in: the same for a container that accepts itself, and for a router."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping, Sequence


def is_authorized(
    authorization: str, keys: Sequence[str] | None, tokens: Mapping[str, float]
) -> bool:
    """Whether a header has a key, or a token that has not ended; or none is asked for.

    Parameters
    ----------
    authorization : str
        What the request says, ``Bearer <key>``.
    keys : sequence of str, or None
        None: nothing is asked for.
    tokens : mapping of str to float
        When each ends, in seconds since the epoch.
    """
    if keys is None:
        return True
    scheme, _, offered = authorization.partition(" ")
    now = time.time()
    accepted = [*keys, *(token for token, end in tokens.items() if end > now)]
    # Every one is compared, whatever the first comparison gave.
    sent = offered.encode("utf-8", "surrogateescape")
    same = [hmac.compare_digest(sent, each.encode()) for each in accepted]
    return scheme.lower() == "bearer" and any(same)
