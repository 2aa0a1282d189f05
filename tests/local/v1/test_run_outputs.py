"""`OutputFileDatasetConfig` through the genuine azureml-core: folders that become data sets.

What each option does is in the docstrings of ``azureml.data.output_dataset_config``.
"""

from __future__ import annotations

import textwrap
import uuid
from pathlib import Path

import pytest
from sdk_polling import fast_polls

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # SDK's
]
pytest.importorskip("azureml.dataprep.rslex", reason="the data engine has no wheel for this Python")

SCRIPT = """
import os, sys
from azureml.core import Run
features, exported, table = sys.argv[1:]
assert os.environ["features"] == features
assert Run.get_context().output_datasets["exported"] == exported
os.makedirs(os.path.join(features, "deep"))
for path, content in (
    (os.path.join(features, "deep", "a.txt"), "a"),
    (os.path.join(exported, "kept.csv"), "x"),
    (os.path.join(exported, "left.tmp"), "x"),
    (os.path.join("made", "here", "t.csv"), "n,square\\n2,4\\n3,9\\n"),
):
    with open(path, "w") as file:
        file.write(content)
"""


@pytest.fixture(scope="module", autouse=True)
def _quick_run_polls():
    from azureml.core import run

    with fast_polls(run):
        yield


@pytest.fixture(scope="module")
def datastore(local_ws):
    return local_ws.get_default_datastore()


def submit(local_ws, script: str, *outputs):
    from azureml.core import Experiment, ScriptRunConfig

    Path("source").mkdir(exist_ok=True)
    Path("source/train.py").write_text(textwrap.dedent(script))
    configuration = ScriptRunConfig(
        "source", script="train.py", arguments=list(outputs), compute_target="local"
    )
    return Experiment(local_ws, "outputs").submit(configuration)


@pytest.fixture(scope="module")
def finished(local_ws, datastore, tmp_path_factory):
    """A completed run with three outputs, and the name of its registered data sets."""
    from azureml.data import OutputFileDatasetConfig

    name = f"made-{uuid.uuid4().hex[:8]}"
    exports = OutputFileDatasetConfig("exported", (datastore, "exports/{run-id}/{output-name}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("outputs"))
        run = submit(
            local_ws,
            SCRIPT,
            OutputFileDatasetConfig("features"),
            exports.as_upload(source_globs=["*.csv"]).register_on_complete(
                f"{name}-files", description="exported", tags={"by": "a run"}
            ),
            OutputFileDatasetConfig("table", source="made/here")
            .register_on_complete(f"{name}-table")  # the SDK loses it where it comes second
            .read_delimited_files(),
        )
        run.wait_for_completion(show_output=True)
    return run, name


def test_output_without_options_is_uploaded_to_the_default_path(finished, datastore):
    run, _ = finished
    datastore.download("got", prefix=f"dataset/{run.id}/features", show_progress=False)
    assert Path(f"got/dataset/{run.id}/features/deep/a.txt").read_text() == "a"


def test_uploaded_output_is_filtered_and_registered(finished, local_ws, datastore):
    from azureml.core import Dataset

    run, name = finished
    registered = Dataset.get_by_name(local_ws, f"{name}-files")
    assert registered.to_path() == ["/kept.csv"]
    assert (registered.description, registered.tags) == ("exported", {"by": "a run"})
    path = f"exports/{run.id}/exported"
    datastore.download("got", prefix=path, show_progress=False)
    assert [each.name for each in Path("got", path).iterdir()] == ["kept.csv"]


def test_transformed_output_is_registered_as_a_table(finished, local_ws):
    from azureml.core import Dataset

    _, name = finished
    frame = Dataset.get_by_name(local_ws, f"{name}-table").to_pandas_dataframe()
    assert frame.astype(int).values.tolist() == [[2, 4], [3, 9]]


def test_details_of_the_run_name_its_output_datasets(finished):
    run, _ = finished
    outputs = {
        each["outputDetails"]["outputName"]: each for each in run.get_details()["outputDatasets"]
    }
    assert outputs.keys() == {"features", "exported", "table"}
    assert outputs["features"]["dataset"].to_path() == ["/deep/a.txt"]
    assert outputs["exported"]["identifier"]["registeredVersion"] == "1"


def test_file_in_the_destination_fails_an_upload_without_overwrite(local_ws, datastore):
    from azureml.data import OutputFileDatasetConfig

    folder = f"fixed-{uuid.uuid4().hex[:8]}"
    Path("model.txt").write_text("before")
    datastore.upload_files(["model.txt"], target_path=folder, show_progress=False)
    script = "import sys; open(sys.argv[1] + '/model.txt', 'w').write('after')"
    output = OutputFileDatasetConfig("models", (datastore, folder)).as_upload()
    run = submit(local_ws, script, output)
    run.wait_for_completion(raise_on_error=False)
    assert run.get_status() == "Failed"
    assert "as_upload(overwrite=True)" in run.get_details()["error"]["error"]["message"]
    datastore.download("got", prefix=folder, show_progress=False)
    assert Path(f"got/{folder}/model.txt").read_text() == "before"


def test_source_outside_of_the_working_directory_is_rejected(local_ws):
    from azureml.data import OutputFileDatasetConfig

    with pytest.raises(Exception, match=r"the output models with the source /tmp/models"):
        submit(local_ws, "pass", OutputFileDatasetConfig("models", source="/tmp/models"))


def test_output_for_spark_is_rejected(local_ws):
    from azureml.data import HDFSOutputDatasetConfig

    with pytest.raises(Exception, match="does not support HDFSOutputDatasetConfig"):
        submit(local_ws, "pass", HDFSOutputDatasetConfig("models"))
