"""The entry point by which an installed tutorial extends the local workspace.

A tutorial is found by an entry point of the group ``mnist_deploy.local``: a mapping with the fields
of :class:`Tutorial`. The local workspace itself names no tutorial.
"""

from __future__ import annotations

from importlib import metadata

import msgspec

GROUP = "mnist_deploy.local"


class Tutorial(msgspec.Struct, frozen=True):
    """The extensions of a tutorial.

    Attributes
    ----------
    prepare : str
        A module that registers the model and the environment that the notebooks expect. It is run
        as ``python -m``, with the folder of the data as its argument.
    offline_substitutes : dict of str to str
        Names of modules, and the modules that replace them where they are not installed, or where
        there is no network.
    fallback_modules : dict of str to str
        Names of modules that the user's code imports and does not have, and modules for them.
    data_host : str
        An address that answers if there is a network.
    shown_properties : tuple of str
        The properties of models that ``show`` prints.
    page : str or None
        A folder of files that extend the portal.
    """

    prepare: str = ""
    offline_substitutes: dict[str, str] = {}
    fallback_modules: dict[str, str] = {}
    data_host: str = ""
    shown_properties: tuple[str, ...] = ()
    page: str | None = None


def find_tutorial() -> Tutorial:
    """The installed tutorial, or a tutorial without extensions."""
    for entry in metadata.entry_points(group=GROUP):
        return msgspec.convert(entry.load(), Tutorial)
    return Tutorial()
