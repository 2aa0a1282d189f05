"""A model of three weights and the script that scores with it: what the local workspace serves
where a test is not about digits.
"""

from __future__ import annotations

from pathlib import Path

import pytest

WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local"
    "/providers/Microsoft.MachineLearningServices/workspaces/local"
)

SCRIPT = """
import json, os
import numpy as np

def init():
    global weights
    folder = os.environ["AZUREML_MODEL_DIR"]
    weights = np.loadtxt(os.path.join(folder, "weights.txt"))
    print("weights are loaded")

def run(raw):
    return [float(np.dot(row, weights)) for row in json.loads(raw)["data"]]
"""


def register_weights(ws, folder: Path, name: str):
    """Register a model whose weights are 1, 10 and 100."""
    from azureml.core import Model

    (folder / "weights.txt").write_text("1 10 100")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # Model.register accepts files below the working directory only
        return Model.register(ws, "weights.txt", name)


def make_inference_config(folder: Path, script: str = SCRIPT, packages: tuple[str, ...] = ()):
    """An InferenceConfig of a script, in an environment of these packages or of none."""
    from azureml.core import Environment
    from azureml.core.conda_dependencies import CondaDependencies
    from azureml.core.model import InferenceConfig

    folder.mkdir(exist_ok=True)
    (folder / "score_weights.py").write_text(script)
    environment = Environment("weights-env")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=list(packages))
    environment.python.user_managed_dependencies = not packages
    return InferenceConfig(
        entry_script="score_weights.py", source_directory=str(folder), environment=environment
    )
