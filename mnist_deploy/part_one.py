"""What part one of the tutorial leaves behind, for notebooks that do not call our helpers.

``python -m mnist_deploy.local exec`` runs this as ``python -m mnist_deploy.part_one DATA_DIR``
before it runs the command that it was given.
"""

from __future__ import annotations

import sys

from mnist_deploy import connect_workspace, prepare_workspace
from mnist_deploy.errors import MnistDeployError


def main(data_dir: str) -> None:
    """Register the tutorial's model and environment in the local workspace, if they are missing."""
    try:
        prepare_workspace(connect_workspace(local=True), data_dir)
    except MnistDeployError as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main(sys.argv[1])
