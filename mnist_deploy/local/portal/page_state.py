"""What the routes of the page work with, besides the state of the workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..rest import state
from .authentication import Codes, Tokens


@dataclass
class PageState:
    """The secrets of the page, and the files that extend it.

    Attributes
    ----------
    codes : Codes
    tokens : Tokens
    extension_files : dict of str to Path
        By the names under which they are served.
    """

    codes: Codes = field(default_factory=Codes)
    tokens: Tokens = field(default_factory=Tokens)
    extension_files: dict[str, Path] = field(default_factory=dict)


def page_state() -> PageState:
    return state().part(PageState)
