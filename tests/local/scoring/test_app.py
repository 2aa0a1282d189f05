"""What a scoring process is before the script is in it."""

from __future__ import annotations

import subprocess
import sys


def test_a_scoring_process_imports_nothing_of_the_control_plane():
    """The arbiter and each worker would hold it: 15 MB, and 60 ms of every deployment."""
    code = "import sys, mnist_deploy.local.scoring.app; print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(finished.stdout.split())
    assert "gunicorn.app.base" in imported
    assert not imported & {"requests", "cryptography", "jwt", "flask", "numpy", "azureml.core"}
