"""``python -m mnist_deploy.local``: see :mod:`mnist_deploy.local.cli`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
