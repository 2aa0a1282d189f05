"""The state of the page, in addition to the state of the workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..rest import state
from .authentication import Codes, Tokens


@dataclass
class PageState:
    """The secrets and the extension files of the page.

    Attributes
    ----------
    codes : Codes
    tokens : Tokens
    extension_files : dict of str to Path
        The extension files by file name in the URL.
    """

    codes: Codes = field(default_factory=Codes)
    tokens: Tokens = field(default_factory=Tokens)
    extension_files: dict[str, Path] = field(default_factory=dict)


def page_state() -> PageState:
    return state().part(PageState)
