"""What a container is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .records import Model
from .requirements import differences


@dataclass(frozen=True)
class Upload:
    """Something that was uploaded, and where it goes.

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
    """What a container is made of. Instances compare by identity: a new spec means new containers.

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
    max_pending : int or None
        How many requests may wait or run in one of its processes; the next is answered 429.
    insights : bool
        Its telemetry is kept: requests, failures, durations, what the script prints.
    warnings : tuple of str
        What is another way here than was asked for; told in the operation and in the log.
    """

    script: str
    uploads: tuple[Upload, ...]
    models: tuple[Model, ...] = ()
    conda: dict[str, Any] | None = None
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    cpu_cores: float = 1.0
    memory_gb: float = 1.0
    max_pending: int | None = None
    insights: bool = False
    warnings: tuple[str, ...] = ()

    @cached_property
    def all_warnings(self) -> list[str]:
        """`warnings`, and what is installed here in other versions than `conda` asks for."""
        return [*self.warnings, *differences(self.conda)]
