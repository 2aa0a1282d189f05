"""Import hooks: functions that change a module after its execution, and substitutes of modules."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]


def install(
    changes: Mapping[str, Change], substitutes: Mapping[str, str], missing: Mapping[str, str]
) -> None:
    """Install hooks in this process; a second call adds to the first.

    Parameters
    ----------
    changes : mapping of str to callable
        Module name -> function that is called with the module after its execution, or at once if
        the module is already loaded.
    substitutes : mapping of str to str
        Module name -> name of the module that is imported instead.
    missing : mapping of str to str
        Module name -> error message if the module cannot be found.
    """
    finder = _find_installed()
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
        sys.meta_path.append(_MissingFinder(finder.missing))
    for name, change in changes.items():
        if name in finder.changes:
            continue
        finder.changes[name] = change
        if (module := sys.modules.get(name)) is not None:
            change(module)
    finder.substitutes.update(substitutes)
    finder.missing.update(missing)


def _find_installed() -> _Finder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)


@contextmanager
def after_import(name: str, change: Change) -> Iterator[None]:
    """Call `change` with a module when it is imported in the block, or at once if it was before."""
    install({name: change}, {}, {})
    try:
        yield
    finally:
        if finder := _find_installed():
            finder.changes.pop(name)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}
        self.substitutes: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.substitutes:
            origin = importlib.util.find_spec(self.substitutes[fullname])
            assert origin is not None
            assert origin.origin is not None
            return importlib.util.spec_from_file_location(fullname, origin.origin)
        if fullname not in self.changes or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.changes[fullname])  # type: ignore[assignment]
        return spec


class _Loader:
    """A loader that calls `change` with each module after its execution."""

    def __init__(self, loader: Any, change: Change) -> None:
        self._loader = loader
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)


class _MissingFinder(importlib.abc.MetaPathFinder):
    """The last finder, which is called only for modules that no other finder has found."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        self._messages = messages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if fullname in self._messages:
            raise ModuleNotFoundError(self._messages[fullname], name=fullname)
