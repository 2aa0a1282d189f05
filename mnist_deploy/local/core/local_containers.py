"""Images and containers of a Docker Engine without Docker, for the local modes of both SDKs.

``local=True`` of SDK v2 and ``LocalWebservice`` of SDK v1 deploy to the Docker Engine that
docker-py finds. Here an image consists of the files and variables that its Dockerfile copies and
sets, and a container is a scoring process. A container has no file system of its own: its path
``/var/azureml-app`` is mapped to a folder, also in the values of variables, and mounts are symbolic
links to the mounted folders.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import tarfile
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import psutil

from ..host import filesystem, networking
from .container import ProcessContainer
from .container_folder import below
from .dockerfiles import ImageContent, apply_dockerfile
from .faults import Conflict, Failed, Invalid, NotFound
from .records import now
from .telemetry import NO_REQUESTS

APP = "/var/azureml-app"  # the folder to which both SDKs copy scripts and models
PORT = "5001/tcp"  # of Microsoft's server in a container
STOP_GRACE = 5.0  # seconds for a stopped container to answer the requests that have arrived
MAX_LOG_LINES = 5000  # of a container that has exited
BACKLOG = 1024  # connections that wait to be accepted
MIN_ID = 10  # digits: Docker's short ids have 10 or 12


@dataclass(eq=False)
class Image:
    """A local image, from which containers are created.

    Attributes
    ----------
    id : str
        ``sha256:`` and 64 hexadecimal digits.
    folder : Path
        The folder of the image, which contains `content.root`.
    """

    id: str
    folder: Path
    content: ImageContent
    tags: list[str] = field(default_factory=list)
    created: str = field(default_factory=now)


@dataclass(frozen=True)
class LocalContainerSpec:
    """The requested settings of a new container.

    Attributes
    ----------
    binds : sequence of str
        Mounts, as ``SOURCE:TARGET[:OPTIONS]``.
    port : int
        The port of 127.0.0.1 to which `PORT` is published; 0 lets the system choose.
    has_terminal : bool
        The log is sent as plain text, without Docker's frames.
    """

    image: str
    name: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[str] = ()
    port: int = 0
    has_terminal: bool = False


class LocalContainer:
    """A container of the Docker Engine API.

    Threads: ``local container`` waits for ``init()``; it is started by `start` and joined by
    `stop`. Lock: `_lock` is held while the container starts or ends, after that of
    `LocalContainers`.

    Attributes
    ----------
    id : str
        64 hexadecimal digits.
    status : str
        ``created``, ``running`` or ``exited``.
    exit_code : int
    port : int or None
        The port on 127.0.0.1 while the container runs.
    cpu_cores, memory_gb : float
        The limits of the container: the cores and the memory of the machine.
    """

    def __init__(self, folder: Path, image: Image, spec: LocalContainerSpec) -> None:
        self.id = secrets.token_hex(32)
        self.spec, self.image = spec, image
        self.name = spec.name or f"local-{self.id[:12]}"
        self.created = now()
        self.status, self.exit_code = "created", 0
        self.port: int | None = None
        self.cpu_cores = float(os.cpu_count() or 1)
        self.memory_gb = psutil.virtual_memory().total / 2**30
        self._folder = folder / self.id[:16]
        self._root = self._folder / "root"
        self._past_log = "\n".join(image.content.warnings)
        self._process: ProcessContainer | None = None
        self._listener: socket.socket | None = None
        self._start_thread: threading.Thread | None = None
        self._lock = threading.RLock()
        shutil.copytree(image.content.root, self._root)
        try:
            for bind in spec.binds:
                self._mount(bind)
        except BaseException:
            self.remove()
            raise

    @property
    def state(self) -> str:
        """The state in the terms of an endpoint: ``Transitioning``, ``Healthy``, ``Unhealthy`` or
        ``Failed``.
        """
        process = self._process
        if process is None:
            return "Failed" if self.exit_code else "Unhealthy"
        return process.state

    @property
    def containers(self) -> list[ProcessContainer]:
        """The scoring container as the only one of a deployment; empty if no process runs."""
        return [self._process] if self._process else []

    @property
    def requests(self) -> dict[str, Any]:
        process = self._process
        return process.requests if process else NO_REQUESTS

    def log_tail(self, lines: int) -> str:
        process = self._process
        text = "\n".join(filter(None, [self._past_log, process.log_tail(lines) if process else ""]))
        return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""

    def extract(self, path: str, archive: IO[bytes]) -> None:
        """Unpack a tar archive into the folder `path` of the container.

        Raises
        ------
        Invalid
            If it is not a tar archive, or an entry is outside of the container.
        """
        target = below(self._root, path.lstrip("/"))
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=archive, mode="r|*") as tar:
                tar.extractall(target, filter="data")
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise Invalid("archive", f"The archive cannot be unpacked: {error}") from error

    def start(self) -> None:
        """Start to serve; ``init()`` runs when this returns.

        Raises
        ------
        Failed
            If the port is taken, or the container has no scoring script.
        """
        with self._lock:
            if self.status == "running":
                return
            variables = self._variables()
            if "AZUREML_ENTRY_SCRIPT" not in variables:
                raise Failed(
                    "container",
                    f"{self.name} has no scoring script (AZUREML_ENTRY_SCRIPT): the local "
                    "workspace runs no other programs in containers.",
                )
            self._listener = listen(self.spec.port)
            self.port = self._listener.getsockname()[1]
            self._process = ProcessContainer(
                self._folder / secrets.token_hex(4),
                self._listener,
                cpu_cores=self.cpu_cores,
                memory_gb=self.memory_gb,
                environment=variables,
            )
            self._process.folder.mkdir()
            self.status, self.exit_code = "running", 0
            self._start_thread = threading.Thread(
                target=self._run, args=(self._process,), daemon=True, name="local container"
            )
            self._start_thread.start()

    def stop(self, grace: float = STOP_GRACE, exit_code: int = 0) -> None:
        """Stop the process and free the port; files and log stay."""
        with self._lock:
            process, listener, thread = self._process, self._listener, self._start_thread
            if process is None or listener is None:
                return
            listener.close()
            self._past_log = self.log_tail(MAX_LOG_LINES)
            self._process = self._listener = self.port = None
            self.status, self.exit_code = "exited", exit_code
        process.stop(grace)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def remove(self) -> None:
        self.stop(grace=0.0)
        filesystem.remove_folder(self._folder)

    def _run(self, process: ProcessContainer) -> None:
        """Wait for ``init()``; if it fails, the container exits."""
        problem = process.start()
        if problem is not None:
            process.log(problem)
            with self._lock:
                if process is self._process:
                    self.stop(grace=0.0, exit_code=1)

    def _mount(self, bind: str) -> None:
        """Link a path of the container to a folder or file of this machine."""
        source, place = split_bind(bind)
        target = below(self._root, str(PurePosixPath(place)).lstrip("/"))
        if not source.exists():
            raise Invalid(
                "mount",
                f"{source} cannot be mounted: there is no such file or folder. Create it first.",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        filesystem.mount(source, target)

    def _variables(self) -> dict[str, str]:
        """The variables of image and container, with paths below `APP` mapped to the folder."""
        given = {"AML_APP_ROOT": APP} | self.image.content.variables | dict(self.spec.variables)
        return {
            name: f"{self._root}{value}" if is_below(APP, value) else value
            for name, value in given.items()
        }


class LocalContainers:
    """The images and containers of one workspace, which end with the control plane.

    Lock order: `_lock`, then that of a `LocalContainer`.

    Parameters
    ----------
    folder : Path
        The parent of a folder for each image and each container.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: list[Image] = []
        self._containers: list[LocalContainer] = []
        self._lock = threading.Lock()

    def build(self, archive: IO[bytes], dockerfile: str, tag: str) -> Image:
        """Build an image from a build context; an older image with the tag loses the tag.

        Raises
        ------
        Fault
            As `apply_dockerfile`, or if the context is not a tar archive.
        """
        folder = self._folder / secrets.token_hex(8)
        context, root = folder / "context", folder / "root"
        try:
            context.mkdir(parents=True)
            root.mkdir()
            try:
                with tarfile.open(fileobj=archive, mode="r|*") as tar:
                    tar.extractall(context, filter="data")
            except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
                raise Invalid("archive", f"The context cannot be unpacked: {error}") from error
            content = apply_dockerfile(context, dockerfile, root)
        except BaseException:
            filesystem.remove_folder(folder)
            raise
        shutil.rmtree(context)
        image = Image(f"sha256:{secrets.token_hex(32)}", folder, content)
        with self._lock:
            if tag:
                for each in self._images:
                    each.tags = [other for other in each.tags if other != with_version(tag)]
                image.tags.append(with_version(tag))
            self._images.append(image)
        return image

    def find_image(self, name: str) -> Image:
        """An image by its id, the first digits of its id, or its tag.

        Raises
        ------
        NotFound
            If there is no such image.
        """
        for image in reversed(self._images):
            if with_version(name) in image.tags or is_id(name, image.id.removeprefix("sha256:")):
                return image
        raise NotFound("image", name, "The local workspace pulls no images.")

    def remove_image(self, name: str) -> None:
        with self._lock:
            image = self.find_image(name)
            if any(each.image is image for each in self._containers):
                raise Conflict("image", f"The image {name} is in use by a container.")
            self._images.remove(image)
        filesystem.remove_folder(image.folder)

    def create(self, spec: LocalContainerSpec) -> LocalContainer:
        """Create a container.

        Raises
        ------
        NotFound
            If there is no such image.
        Conflict
            If a container has that name already.
        Invalid
            If a mounted folder does not exist.
        """
        with self._lock:
            image = self.find_image(spec.image)
            if spec.name and any(each.name == spec.name for each in self._containers):
                raise Conflict(
                    "container",
                    f"There is a container {spec.name} already: remove it, or choose another name.",
                )
            container = LocalContainer(self._folder, image, spec)
            self._containers.append(container)
        return container

    def all(self) -> list[LocalContainer]:
        """Every container, the newest first."""
        return self._containers[::-1]

    def find(self, name: str) -> LocalContainer:
        """A container by its id, the first digits of its id, or its name.

        Raises
        ------
        NotFound
            If there is no such container.
        """
        for container in self.all():
            if container.name == name.lstrip("/") or is_id(name, container.id):
                return container
        raise NotFound(
            "container",
            name,
            "If $HOSTNAME is exported, SDK v1 requests a container of that name: unset it.",
        )

    def remove(self, container: LocalContainer) -> None:
        with self._lock:
            if container in self._containers:
                self._containers.remove(container)
        container.remove()

    def close(self) -> None:
        for container in self.all():
            self.remove(container)
        filesystem.remove_folder(self._folder)


def listen(port: int) -> socket.socket:
    """Listen on 127.0.0.1; the error for a port in use is worded as Docker's."""
    try:
        return networking.listen(port, BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise Failed("port", f"Port {port} cannot be listened on: {error}") from error
        raise Failed(
            "port", f"Bind for 127.0.0.1:{port} failed: port is already allocated"
        ) from error


def with_version(tag: str) -> str:
    """Add ``:latest`` to a tag without a version."""
    return tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"


def split_bind(bind: str) -> tuple[Path, str]:
    """Source and target of ``SOURCE:TARGET[:OPTIONS]``; a source on Windows begins with ``C:``."""
    drive, path = os.path.splitdrive(bind)
    source, _, rest = path.partition(":")
    return Path(drive + source), rest.partition(":")[0]


def is_id(text: str, identifier: str) -> bool:
    """Whether `text` consists of at least the first `MIN_ID` digits of an identifier."""
    digits = text.removeprefix("sha256:")
    return len(digits) >= MIN_ID and identifier.startswith(digits)


def is_below(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
