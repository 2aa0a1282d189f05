"""scikit-learn imports pandas only when it is used; tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from mnist_deploy.local.scoring import no_pandas
no_pandas.install()
import sys
import sklearn.linear_model
from sklearn.preprocessing import StandardScaler
scaler = StandardScaler().fit([[0.0, 1.0], [2.0, 3.0]])
scaler.transform([[0.0, 1.0]])
print({"pandas", "pyarrow"} & set(sys.modules))
scaler.set_output(transform="pandas")  # scikit-learn itself imports it now
print(type(scaler.transform([[0.0, 1.0]])).__name__)
"""


@pytest.mark.processes
def test_pandas_is_imported_only_when_it_is_used():
    pytest.importorskip("pandas")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.split() == ["set()", "DataFrame"], run.stderr
