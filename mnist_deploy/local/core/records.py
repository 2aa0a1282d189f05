"""Records of the store: plain values, independent of the REST APIs."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


def now() -> str:
    """Return the current time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes
    ----------
    version : int
        Counted from 1 for each name, and never used again.
    artifacts : tuple of str
        The paths of its files in the store: each a file, or a folder with all files below it.
    created : str
        ISO 8601, in UTC.
    other : dict of dict
        Fields that only one client uses, by the client's name (``v1``, ``v2``, ``mlflow``), as the
        client sent them.
    """

    name: str
    version: int
    artifacts: tuple[str, ...]
    created: str
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    archived: bool = False
    other: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def path(self) -> str:
        """The path of the only artifact, or the common folder of several artifacts."""
        return posixpath.commonpath([path.rstrip("/") for path in self.artifacts] or [""])


@dataclass(frozen=True)
class RegisteredModel:
    """The description and the tags of a model's name, which only MLflow's calls set."""

    name: str
    created: str
    version: str = "1"
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """A registered environment: the packages and variables that a script needs.

    Attributes
    ----------
    version : str
        A counted number, or a text that the client chose.
    conda : dict or None
        The content of its conda file.
    image : str or None
        The base image.
    variables : dict of str to str
        Environment variables of the script.
    other : dict of dict
        See `Model`.
    """

    name: str
    version: str
    created: str
    description: str = ""
    conda: dict[str, Any] | None = None
    image: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    archived: bool = False
    other: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Code:
    """A folder of scripts that was uploaded for deployments.

    Attributes
    ----------
    artifacts : tuple of str
        See `Model`.
    digest : str
        A hash of the content, by which the SDK finds an equal folder.
    """

    name: str
    version: str
    artifacts: tuple[str, ...]
    created: str
    digest: str = ""
    other: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Compute:
    """A cluster: a name that services can be deployed to.

    Attributes
    ----------
    kind : str
        ``AKS`` or ``Kubernetes``.
    resource_id : str
        The Azure id of an attached cluster; empty for a created cluster.
    settings : dict
        The request as the client sent it.
    """

    name: str
    kind: str
    created: str
    version: str = "1"
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    resource_id: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedDataset:
    """The definition of a data set, which never changes; its `name` is its id.

    Attributes
    ----------
    kind : str
        ``file`` or ``tabular``.
    dataflow : str
        The steps of the data engine, as JSON.
    """

    name: str
    created: str
    kind: str
    dataflow: str
    version: str = "1"
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A data set that is registered under a name.

    Attributes
    ----------
    version : int
        Counted from 1 for each name.
    saved : str
        The id of its `SavedDataset`.
    """

    name: str
    version: int
    created: str
    saved: str
    description: str = ""
    tags: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A data asset: a file or a folder of the data store, under a name and a version.

    Attributes
    ----------
    kind : str
        ``uri_file``, ``uri_folder`` or ``mltable``.
    path : str
        The artifact, or the folder of artifacts.
    """

    name: str
    version: str
    created: str
    kind: str
    path: str
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    archived: bool = False
    other: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchEndpoint:
    """A name under which folders of files are scored.

    Attributes
    ----------
    default : str
        The name of the deployment for invocations that name none; empty if there is none.
    """

    name: str
    created: str
    version: str = "1"
    default: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchDeployment:
    """A script and a model with which a batch endpoint scores files.

    Attributes
    ----------
    name : str
        ``endpoint/deployment``.
    settings : dict
        The properties of the request, as the client sent them.
    """

    name: str
    created: str
    version: str = "1"
    tags: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A measurement of a script and its models with the rows of a data set.

    Attributes
    ----------
    version : int
        Counted from 1 for each name.
    dataset : str
        The id of the `SavedDataset` whose rows are sent.
    models : tuple of str
        The ids of the models, ``name:version``.
    cpu, memory_gb : float
        The size of the container: cores, and memory in GB.
    state : str
        ``Running``, ``Succeeded`` or ``Failed``.
    error : dict or None
        ``code`` and ``message``; set for a succeeded profile if the measurement is incomplete.
    measured : dict
        The fields of `programs.profile.Measurements`.
    artifacts : tuple of str
        The log of the container, when the profile has ended.
    other : dict of dict
        See `Model`.
    """

    name: str
    version: int
    created: str
    dataset: str
    models: tuple[str, ...]
    cpu: float
    memory_gb: float
    state: str = "Running"
    description: str | None = None
    error: dict[str, str] | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    other: dict[str, dict[str, Any]] = field(default_factory=dict)
