"""Container specs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from ..platforms import ProbeSettings
from .records import Model
from .requirements import differences

MAX_WORKERS = 64  # processes of one container


@dataclass(frozen=True)
class Upload:
    """An uploaded artifact and its path in the container.

    Attributes
    ----------
    artifact : str
        The path it was uploaded to: of a file, or of a folder with all below it.
    path : str
        Where it goes, below the container's ``app`` folder.
    unpack : bool
        It is a tar archive, whose content goes there.
    """

    artifact: str
    path: str = ""
    unpack: bool = False


@dataclass(frozen=True, eq=False)
class ContainerSpec:
    """The spec of a container.

    Equal specs mean the same containers: a deployment keeps its containers as long as its spec
    is equal. Warnings and the labels of models take no part in the comparison.

    Attributes
    ----------
    script : str
        The entry script, below the ``app`` folder.
    conda : dict or None
        The content of a conda file, which is compared with what is installed here.
    environment : str
        The registered environment that it was made from, as ``name:version``, if any.
    variables : dict of str to str
        Environment variables of the script.
    cpu_cores, memory_gb : float
    liveness : ProbeSettings or None
        When a container that does not react is restarted. None: as the platform's default.
    insights : bool
        Its telemetry is kept: requests, failures, durations, what the script prints.
    warnings : tuple of str
        Options that have no effect here, or another one; reported in the operation and the log.
    generation : int
        Raised to replace the containers by others of otherwise the same spec.
    """

    script: str
    uploads: tuple[Upload, ...]
    models: tuple[Model, ...] = ()
    conda: dict[str, Any] | None = None
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    cpu_cores: float = 1.0
    memory_gb: float = 1.0
    liveness: ProbeSettings | None = None
    insights: bool = False
    warnings: tuple[str, ...] = ()
    generation: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContainerSpec) and self._compared == other._compared

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def _compared(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["warnings"]
        return values | {"models": [(model.id, model.artifacts) for model in self.models]}

    @cached_property
    def all_warnings(self) -> list[str]:
        """`warnings`, and one for each package whose installed version differs from `conda`."""
        return [*self.warnings, *differences(self.conda)]
