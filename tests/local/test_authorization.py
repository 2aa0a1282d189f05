"""Which scoring requests are authorized."""

from __future__ import annotations

import math
import time

import pytest

from mnist_deploy.local.authorization import hash_token, is_authorized

TOKENS = {hash_token("valid"): math.inf, hash_token("expired"): time.time() - 1}


@pytest.mark.parametrize("header", ["Bearer one", "bearer two", "Bearer valid"])
def test_key_and_valid_token_are_authorized(header):
    assert is_authorized(header, ["one", "two"], TOKENS)


@pytest.mark.parametrize(
    "header",
    ["", "one", "Bearer", "Bearer ", "Bearer on", "Bearer one ", "Basic one", "Bearer expired",
     "Bearer \xe9", "Bearer \udcff", f"Bearer {hash_token('valid')}"],
)  # fmt: skip
def test_invalid_credentials_are_not_authorized(header):
    assert not is_authorized(header, ["one", "two"], TOKENS)


def test_requests_are_authorized_where_no_key_is_required():
    assert is_authorized("", None, {})
    assert not is_authorized("Bearer ", (), {})
