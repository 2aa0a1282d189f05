"""What a tutorial that is installed beside the local workspace adds to it.

Nothing in here names one: whoever wants to be known has an entry point of the group
``mnist_deploy.local``, which leads to a mapping with the fields of :class:`Tutorial`.
"""

from __future__ import annotations

from importlib import metadata

import msgspec

GROUP = "mnist_deploy.local"


class Tutorial(msgspec.Struct, frozen=True):
    """A tutorial's share.

    Attributes
    ----------
    prepare : str
        A module that registers what the notebooks expect to find. It is run as ``python -m``,
        with the folder of the data for its argument.
    stand_ins : dict of str to str
        Modules that take the place of others where those are missing, or without a network.
    fallback_modules : dict of str to str
        Modules for names that the user's code imports and does not have.
    data_host : str
        An address that answers if there is a network.
    shown : tuple of str
        The properties of models that are worth a look.
    page : str or None
        A folder of files that take part in the page in the browser.
    """

    prepare: str = ""
    stand_ins: dict[str, str] = {}
    fallback_modules: dict[str, str] = {}
    data_host: str = ""
    shown: tuple[str, ...] = ()
    page: str | None = None


def find_tutorial() -> Tutorial:
    """The tutorial that is installed; one that adds nothing if there is none."""
    for entry in metadata.entry_points(group=GROUP):
        return msgspec.convert(entry.load(), Tutorial)
    return Tutorial()
