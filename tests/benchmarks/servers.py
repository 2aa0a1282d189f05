"""The servers under measurement: deployed services and server processes of peer products."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import requests
from memory import peak_memory
from ways import Form

if TYPE_CHECKING:
    from azureml.core import Environment, Model, Workspace

START_TIMEOUT = 120.0  # seconds
MEMORY_GB = 8  # large enough that no container is stopped for its memory


class DeployedService:
    """A service on the local workspace; ``seconds_to_start`` is from deploy to first answer.

    Parameters
    ----------
    workspace, model, environment
        As `prepare_workspace` left them.
    script : Path
    name : str
    one_image : ndarray, shape (1, features)
    form : Form
        In which the first image is sent.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: Model,
        environment: Environment,
        script: Path,
        name: str,
        one_image: np.ndarray,
        form: Form,
    ) -> None:
        from mnist_deploy import build_aci_config, build_inference_config, deploy_to_aci

        self.name = name
        began = time.perf_counter()
        self._service = deploy_to_aci(
            workspace,
            model,
            build_inference_config(environment, script),
            build_aci_config(cpu_cores=1, memory_gb=MEMORY_GB),
            name=name,
        )
        self.uri: str = self._service.scoring_uri
        score_once(self.uri, form, one_image)
        self.seconds_to_start = time.perf_counter() - began

    def peak_memory(self) -> float | None:
        # Microsoft's server logs its pid; the last one belongs to the process that runs now.
        return peak_memory(
            re.findall(r"Worker with pid (\d+) ready", self._service.get_logs())[-1:]
        )

    def stop(self) -> None:
        self._service.delete()


class PeerServer:
    """A peer's server; ``seconds_to_start`` is from its command to its first answer.

    Parameters
    ----------
    command : list of str
    environment : mapping of str to str
        Beside this process's own variables.
    folder : Path
        Where it runs, and writes its log.
    uri : str
    one_image : ndarray, shape (1, features)
    form : Form

    Raises
    ------
    RuntimeError
        The server ended or did not answer in time; the message has the last line of its log.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        uri: str,
        one_image: np.ndarray,
        form: Form,
    ) -> None:
        self.name = ""
        self.uri = uri
        self._log = folder / "server.log"
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait(one_image, form)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_start = time.perf_counter() - began

    def _wait(self, one_image: np.ndarray, form: Form) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                score_once(self.uri, form, one_image)
                return
            except requests.RequestException as error:
                reason = str(error)
                time.sleep(0.02)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else reason
        raise RuntimeError(f"the server did not start: {last}")

    def peak_memory(self) -> float | None:
        pids = [self._process.pid]
        pids += [child.pid for child in psutil.Process(pids[0]).children(recursive=True)]
        return peak_memory(pids)

    def stop(self) -> None:
        """Stop the process group: SIGTERM first, SIGKILL after 10 seconds."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)


def score_once(uri: str, form: Form, images: np.ndarray) -> list[int]:
    """Send one request over a new connection and return the labels."""
    answer = requests.post(
        uri, data=form.body(images), headers={"Content-Type": form.content_type}, timeout=60
    )
    answer.raise_for_status()
    return form.labels(answer.content)
