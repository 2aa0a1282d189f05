"""The names and links of mnist_deploy/managed/README.md exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import mnist_deploy.errors
from mnist_deploy import managed

README = Path(managed.__file__).with_name("README.md")
TEXT = README.read_text(encoding="utf-8")


def test_links_lead_to_existing_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_helpers_are_all_named():
    functions = [name for name in managed.__all__ if inspect.isfunction(getattr(managed, name))]
    assert [name for name in functions if f"`{name}" not in TEXT] == []


def test_named_exceptions_exist():
    table = TEXT.partition("## Status codes")[2]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert len(named) >= 6
    assert [name for name in named if not hasattr(mnist_deploy.errors, name)] == []
