"""A local workspace for the benchmark, in a temporary home, with a model fitted to the sample."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from client import PIECE, STREAM, Client
from servers import DeployedService
from ways import OUR_IDX, Form

HERE = Path(__file__).parent
OUR_SCRIPT = HERE.parents[1] / "score.py"
TUTORIAL_SCRIPT = HERE / "tutorial_score.py"
EMPTY_SCRIPT = HERE / "empty_score.py"
NOTEBOOK_TIMEOUT = 600  # seconds


class LocalWorkspace:
    """Registers the sample's model once; the user's own workspace is not touched.

    Attributes
    ----------
    data_dir : Path
        With the sample.
    model_file : Path
    """

    def __init__(self, home: Path) -> None:
        from mnist_deploy import (
            connect_workspace,
            download_model,
            fetch_environment,
            prepare_workspace,
        )
        from mnist_deploy.data import write_sample

        self._home = home
        self.data_dir = home / "data"
        write_sample(self.data_dir)
        os.environ["MNIST_DEPLOY_HOME"] = str(home / "workspace")
        self._workspace = connect_workspace(local=True)
        try:
            self._model = prepare_workspace(self._workspace, self.data_dir)
            self._environment = fetch_environment(self._workspace)
            self.model_file: Path = download_model(self._model, home)
        except BaseException:
            self.close()
            raise

    def deploy(self, script: Path, name: str, one_image: np.ndarray, form: Form) -> DeployedService:
        return DeployedService(
            self._workspace, self._model, self._environment, script, name, one_image, form
        )

    def stream(self, count: int, images: np.ndarray) -> dict[str, Any]:
        """Send an iterator of uint8 arrays to a new service with our client.

        Returns
        -------
        dict
            ``seconds``; ``client_peak_mb`` and ``server_peak_mb``, None off Linux.
        """
        pixels = np.rint(images * 255).astype(np.uint8)
        file = self._home / "pixels.npy"
        np.save(file, np.resize(pixels, (max(PIECE, len(pixels)), pixels.shape[1])))
        service = self.deploy(OUR_SCRIPT, "stream", images[:1], OUR_IDX)
        client = Client(sys.executable, STREAM, service.uri, service.name, file)
        try:
            answer = client.score(count)
            return {
                "seconds": answer["seconds"],
                "client_peak_mb": answer["peak_mb"],
                "server_peak_mb": service.peak_memory(),
            }
        finally:
            client.close()
            service.stop()

    def seconds_to_deploy(self, one_image: np.ndarray) -> float:
        """From `deploy_to_aci` to the first answer of a new service."""
        service = self.deploy(OUR_SCRIPT, "start", one_image, OUR_IDX)
        service.stop()
        return service.seconds_to_start

    def seconds_of_notebook(self) -> float:
        """``python -m mnist_deploy``, for which part one has been done.

        Raises
        ------
        RuntimeError
            The notebook run failed; the message has the last line of its output.
        """
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "mnist_deploy", "--data-dir", str(self.data_dir)]
            began = time.perf_counter()
            finished = subprocess.run(
                [*command, "--output-dir", folder],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=NOTEBOOK_TIMEOUT,
            )
            seconds = time.perf_counter() - began
        if finished.returncode != 0:
            output = (finished.stdout + finished.stderr).strip().splitlines()
            raise RuntimeError(f"python -m mnist_deploy failed: {output[-1]}")
        return seconds

    def close(self) -> None:
        from mnist_deploy import local

        local.stop()
