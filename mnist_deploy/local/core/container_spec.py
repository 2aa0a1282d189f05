"""Container specs: script, models and resources of a container, for both REST APIs."""

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
        The path in the store: of a file, or of a folder with all files below it.
    path : str
        The path in the container, below its ``app`` folder.
    unpack : bool
        The artifact is a tar archive, whose content is unpacked to `path`.
    """

    artifact: str
    path: str = ""
    unpack: bool = False


@dataclass(frozen=True, eq=False)
class ContainerSpec:
    """Script, models, environment and resources of a container.

    A deployment keeps its containers if its new spec equals the present spec. Warnings and the
    labels of models are not compared.

    Attributes
    ----------
    script : str
        The entry script, below the ``app`` folder.
    conda : dict or None
        The content of a conda file, which is compared with the installed packages.
    environment : str
        The registered environment that the spec was made from, as ``name:version``; or empty.
    variables : dict of str to str
        Environment variables of the script.
    cpu_cores, memory_gb : float
    liveness : ProbeSettings or None
        The liveness probe. None: the platform's default.
    insights : bool
        Microsoft's server sends its telemetry to the control plane.
    warnings : tuple of str
        Options that have no effect, or another effect than on Azure. They are reported in the
        operation and in the log.
    generation : int
        Increased to replace the containers although nothing else in the spec has changed.
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
