"""Data stores and data sets through the genuine azureml-core and its data engine, rslex."""

from __future__ import annotations

import gzip
import textwrap
import uuid
from pathlib import Path

import pytest
from sdk_polling import fast_polls
from weights_service import WORKSPACE

pytestmark = pytest.mark.processes

pytest.importorskip("azureml.dataprep.rslex", reason="the data engine has no wheel for this Python")

FILES = {"train/images.gz": b"images", "train/labels.gz": b"labels", "test/images.gz": b"t" * 5000}


@pytest.fixture(scope="module")
def datastore(local_ws):
    return local_ws.get_default_datastore()


@pytest.fixture(scope="module")
def digits(datastore, tmp_path_factory):
    """The folder of the data store that `FILES` were uploaded to."""
    source, folder = tmp_path_factory.mktemp("digits"), f"digits-{uuid.uuid4().hex[:8]}"
    for name, content in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(gzip.compress(content))
    datastore.upload(str(source), target_path=folder, overwrite=True, show_progress=False)
    return folder


@pytest.fixture(scope="module")
def file_dataset(datastore, digits):
    from azureml.core import Dataset

    return Dataset.File.from_files((datastore, digits))


def names_below(folder: str) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    }


def test_uploaded_files_are_downloaded_unchanged(datastore, digits):
    count = datastore.download("back", prefix=f"{digits}/train", show_progress=False)
    assert count == 2
    assert names_below(f"back/{digits}") == {"train/images.gz", "train/labels.gz"}
    content = Path(f"back/{digits}/train/images.gz").read_bytes()
    assert gzip.decompress(content) == b"images"


def test_other_data_stores_are_not_found_and_cannot_be_registered(local_ws):
    from azureml.core import Datastore

    with pytest.raises(Exception, match="only data store is workspaceblobstore"):
        Datastore.get(local_ws, "other")
    with pytest.raises(Exception, match="none can be registered"):
        Datastore.register_azure_file_share(local_ws, "other", "share", "account", "token")


def test_engine_lists_and_downloads_the_files_of_a_data_set(file_dataset):
    assert sorted(file_dataset.to_path()) == sorted(f"/{name}" for name in FILES)
    file_dataset.download("got", overwrite=True)
    assert names_below("got") == set(FILES)
    assert gzip.decompress(Path("got/test/images.gz").read_bytes()) == b"t" * 5000


def test_registered_data_set_has_versions(local_ws, datastore, digits, file_dataset):
    from azureml.core import Dataset

    name = f"digits-{uuid.uuid4().hex[:8]}"
    first = file_dataset.register(local_ws, name, description="all", tags={"of": "MNIST"})
    assert first.version == 1
    with pytest.raises(Exception, match="already a dataset registered under name"):
        Dataset.File.from_files((datastore, f"{digits}/test")).register(local_ws, name)
    part = Dataset.File.from_files((datastore, f"{digits}/train/*.gz"))
    second = part.register(local_ws, name, create_new_version=True)
    assert second.version == 2
    assert Dataset.get_by_name(local_ws, name).to_path() == ["/images.gz", "/labels.gz"]
    old = Dataset.get_by_name(local_ws, name, version=1)
    assert (old.description, old.tags, len(old.to_path())) == ("all", {"of": "MNIST"}, 3)
    assert name in local_ws.datasets
    second.add_tags({"part": "train"})
    assert Dataset.get_by_name(local_ws, name).tags == {"part": "train"}
    Dataset.get_by_name(local_ws, name).unregister_all_versions()
    with pytest.raises(Exception, match="Cannot find dataset registered with name"):
        Dataset.get_by_name(local_ws, name)


def test_tabular_dataset_becomes_a_data_frame(local_ws, datastore):
    from azureml.core import Dataset

    folder = f"tables-{uuid.uuid4().hex[:8]}"
    Path("digits.csv").write_text("label,share\n0,0.1\n1,0.9\n")
    datastore.upload_files(["digits.csv"], target_path=folder, show_progress=False)
    table = Dataset.Tabular.from_delimited_files((datastore, f"{folder}/digits.csv"))
    saved = table.register(local_ws, folder)
    frame = Dataset.get_by_id(local_ws, saved.id).to_pandas_dataframe()
    assert frame.to_dict("list") == {"label": [0, 1], "share": [0.1, 0.9]}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # the SDK's
def test_run_gets_files_as_folders_and_tables_by_id(local_ws, datastore, digits, capsys):
    from azureml.core import Dataset, Experiment, ScriptRunConfig, run

    Path("digits.csv").write_text("label\n7\n")
    datastore.upload_files(["digits.csv"], target_path=f"{digits}-table", show_progress=False)
    table = Dataset.Tabular.from_delimited_files((datastore, f"{digits}-table/digits.csv"))
    everything = Dataset.File.from_files((datastore, digits))
    part = Dataset.File.from_files((datastore, f"{digits}/**/labels.gz"))
    Path("source").mkdir()
    Path("source/show.py").write_text(
        textwrap.dedent(
            """
            import glob, os, sys
            from azureml.core import Run
            inputs = Run.get_context().input_datasets
            for folder in (sys.argv[1], inputs["part"], sys.argv[3]):
                found = glob.glob(folder + "/**/*.*", recursive=True)
                print(sorted(os.path.relpath(each, folder) for each in found))
            print(inputs["table"].to_pandas_dataframe().label.tolist())
            """
        )
    )
    reference = datastore.path(f"{digits}-table").as_mount()
    configuration = ScriptRunConfig(
        "source",
        script="show.py",
        arguments=[
            everything.as_named_input("all").as_mount(),
            part.as_named_input("part").as_download(),
            str(reference),
            table.as_named_input("table"),
        ],
        compute_target="local",
    )
    configuration.run_config.data_references = {
        reference.data_reference_name: reference.to_config()
    }
    with fast_polls(run):
        submitted = Experiment(local_ws, "data").submit(configuration)
        submitted.wait_for_completion(show_output=True)
    printed = capsys.readouterr().out
    assert "['test/images.gz', 'train/images.gz', 'train/labels.gz']\n" in printed
    assert "['train/labels.gz']\n" in printed
    assert "['digits.csv']\n" in printed
    assert "[7]\n" in printed
    lineage = str(submitted.get_details()["inputDatasets"])
    assert all(name in lineage for name in ("all", "part", "table", "Mount", "Download"))


def test_missing_data_set_is_not_found(call):
    for path in (
        f"/dataset/v1.0{WORKSPACE}/datasets/query/name=none",
        f"/dataset/v1.0{WORKSPACE}/saveddatasets/none",
        f"/data/v1.0{WORKSPACE}/dataversion/unregistered-none/versions/1",
    ):
        answer = call("GET", path)
        assert answer.status_code == 404, path
        assert "none" in answer.json()["error"]["message"]
