"""What stands in for azureml.opendatasets where that is not there or has no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from azureml.exceptions import UserErrorException

from mnist_deploy.data import load_data, open_datasets
from mnist_deploy.data.open_datasets import FOLDER, MNIST

NAMES = {
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
}


@pytest.fixture(autouse=True)
def _data(sample_dir, monkeypatch):
    monkeypatch.setenv("MNIST_DEPLOY_DATA", str(sample_dir))
    monkeypatch.setattr("mnist_deploy.data.sources._AZURE", "http://127.0.0.1:9/")  # no network


def test_downloads_all_files_below_the_folder(tmp_path, sample_dir):
    target = tmp_path / "data"
    paths = MNIST.get_file_dataset().download(str(target), overwrite=True)
    assert {Path(path).name for path in paths} == NAMES
    assert [str(target) + path for path in MNIST.get_file_dataset().to_path()] == paths
    (found,) = target.glob("**/t10k-images-idx3-ubyte.gz")
    assert load_data(found).shape == (1000, 784)
    for path in paths:
        assert Path(path).read_bytes() == (sample_dir / Path(path).name).read_bytes()


@pytest.mark.parametrize(("split", "beginning"), [("train", "train-"), ("test", "t10k-")])
def test_downloads_one_split_and_overwrites_only_if_asked_to(tmp_path, split, beginning):
    files = MNIST.get_file_dataset(dataset_filter=split)
    paths = files.download(tmp_path)
    assert {Path(path).name for path in paths} == {n for n in NAMES if n.startswith(beginning)}
    with pytest.raises(UserErrorException, match="overwrite=True"):
        files.download(tmp_path)
    assert files.download(tmp_path, overwrite=True) == paths


def test_downloads_into_a_new_folder_if_none_is_named():
    (first, *_) = MNIST.get_file_dataset().download()
    (other, *_) = MNIST.get_file_dataset().download()
    assert Path(first).is_file()
    assert first != other


def test_keeps_genuine_files(tmp_path, genuine_dir):
    """What the genuine library brought when there was a network is worth more than the sample."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes((genuine_dir / name).read_bytes())
    MNIST.get_file_dataset().download(tmp_path, overwrite=True)
    for name in NAMES:
        assert (folder / name).read_bytes() == (genuine_dir / name).read_bytes()


def test_refuses_everything_else_by_name():
    with pytest.raises(NotImplementedError, match=r"501 .* register\(\)"):
        MNIST.get_file_dataset().register(workspace=None, name="mnist")
    with pytest.raises(NotImplementedError, match="get_tabular_dataset"):
        MNIST.get_tabular_dataset()
    with pytest.raises(ImportError, match="Diabetes cannot be had"):
        from mnist_deploy.data.open_datasets import Diabetes  # noqa: F401
    assert not hasattr(open_datasets, "__path__")
