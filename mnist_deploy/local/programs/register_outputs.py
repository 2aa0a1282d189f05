"""Registers the output data sets of a run with azureml-core, as the last step of the run.

``python -m mnist_deploy.local.programs.register_outputs OUTPUTS``, with the environment of the run:
a JSON list of objects with ``name``, ``path`` (of the default data store) and ``config`` (as the
execution service of Azure sends it to a run). The files are in the data store already.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any


def register(outputs: list[dict[str, Any]]) -> None:
    from azureml.core import Datastore
    from azureml.data.context_managers import DatasetContextManager

    with contextlib.redirect_stdout(io.StringIO()):  # keeps the SDK's progress out of the run's log
        manager = DatasetContextManager({each["name"]: each["config"] for each in outputs})
        datastore = Datastore.get_default(manager._workspace)
        for each in outputs:
            manager._register_output(each["name"], (datastore, each["path"]), each["config"])


if __name__ == "__main__":
    register(json.loads(sys.argv[1]))
