"""The notebook of the 2026 edition, run on the sample by a client that stores all outputs.

``python -m mnist_deploy`` removes progress bars and erased lines; JupyterLab shows them.
"""

from __future__ import annotations

from importlib.util import find_spec

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert.filters import strip_ansi
from probed_run import printed_by, read

from mnist_deploy.__main__ import inject

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not all(map(find_spec, ("azure.ai", "mlflow"))),
        reason="needs the extras sdk-v2 and mlflow",
    ),
]

NAME = "img-classification-part2-deploy-2026"


@pytest.fixture(scope="module")
def executed(tmp_path_factory, home, sample_dir) -> nbformat.NotebookNode:
    folder = tmp_path_factory.mktemp("run")
    notebook = read(NAME)
    inject(notebook, {"data_dir": str(sample_dir)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_DEPLOY_HOME", str(home))
        patch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
        client.execute()
    return notebook


def test_deployments_with_and_without_a_script_give_the_labels_of_the_local_model(executed):
    printed = printed_by(executed)
    assert printed.count("Labels that differ from the local ones: 0\n") == 2
    assert "Labels that differ from green's: 0\n" in printed
    assert "Labels that differ from the online endpoint's: 0\n" in printed
    assert "deployments: ['green']" in printed


def test_second_model_is_more_accurate_than_the_first(executed):
    [line] = [line for line in printed_by(executed).splitlines() if line.startswith("blue: ")]
    _, blue, _, green = line.split()
    assert float(green) > float(blue) > 0.88


def test_model_is_verified_before_it_is_loaded(executed):
    source = "\n".join(cell.source for cell in executed.cells if cell.cell_type == "code")
    assert source.index('model.properties.get("sha256"') < source.index("joblib.load(model_path)")


def test_outputs_have_no_standard_error_and_no_empty_text(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    texts = [
        "".join(output.text for output in cell.get("outputs", []) if "text" in output)
        for cell in executed.cells
    ]
    assert [text for text in texts if text and not strip_ansi(text).strip()] == []
