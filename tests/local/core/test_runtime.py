"""The seam between the API's state and what runs, and what may be imported above it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_deploy.local

POSIX_ONLY = ("fcntl", "resource", "termios")
PORTABLE = ("local.core.records", "local.core.store", "local.core.endpoints",
            "local.core.deployments", "local.rest", "local.v1", "local.v2", "local.server.app",
            "testing.workspace", "testing.client")  # fmt: skip
# Run before the imports: an import of these modules fails, as it does on Windows. `local.host`,
# whose modules alone may import them, is replaced.
BLOCK = """
import sys
from unittest.mock import MagicMock

import psutil  # which imports `resource` on Linux only

host = sys.modules["mnist_deploy.local.host"] = MagicMock()
host.networking.MAX_SOCKETS = 1024

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ImportError(f"there is no module {{name}} here")

sys.meta_path.insert(0, Blocked())
for name in {blocked!r}:
    sys.modules.pop(name, None)
"""


def test_modules_are_imported_where_posix_modules_are_missing():
    imports = "".join(f"\nimport mnist_deploy.{module}" for module in PORTABLE)
    program = BLOCK.format(blocked=POSIX_ONLY) + imports
    # Without the local cloud of other tests, for which SDK v2 would send a request at its import.
    variables = {**os.environ, "AZUREML_CURRENT_CLOUD": "AzureCloud"}
    finished = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


STATE = ("archives", "artifacts", "blobs", "container_folder", "container_spec", "database",
         "deployments", "endpoints", "faults", "migration", "operations", "records",
         "requirements", "routing", "runtime", "store", "telemetry")  # fmt: skip


@pytest.mark.parametrize("module", STATE)
def test_module_of_the_rest_state_imports_no_sockets_and_no_signals(module):
    file = Path(mnist_deploy.local.__file__).parent / "core" / f"{module}.py"
    names = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert not names & {*POSIX_ONLY, "signal", "socket", "subprocess"}
