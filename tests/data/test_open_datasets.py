"""The offline substitute for azureml.opendatasets."""

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


def test_download_copies_all_files_below_the_folder(tmp_path, sample_dir):
    target = tmp_path / "data"
    paths = MNIST.get_file_dataset().download(str(target), overwrite=True)
    assert {Path(path).name for path in paths} == NAMES
    expected = [str(target) + path for path in MNIST.get_file_dataset().to_path()]
    assert [*map(Path, expected)] == [*map(Path, paths)]
    (found,) = target.glob("**/t10k-images-idx3-ubyte.gz")
    assert load_data(found).shape == (1000, 784)
    for path in paths:
        assert Path(path).read_bytes() == (sample_dir / Path(path).name).read_bytes()


@pytest.mark.parametrize(("split", "prefix"), [("train", "train-"), ("test", "t10k-")])
def test_download_of_one_split_overwrites_only_on_request(tmp_path, split, prefix):
    files = MNIST.get_file_dataset(dataset_filter=split)
    paths = files.download(tmp_path)
    assert {Path(path).name for path in paths} == {n for n in NAMES if n.startswith(prefix)}
    with pytest.raises(UserErrorException, match="overwrite=True"):
        files.download(tmp_path)
    assert files.download(tmp_path, overwrite=True) == paths


def test_download_without_a_folder_uses_a_temporary_one():
    (first, *_) = MNIST.get_file_dataset().download()
    (other, *_) = MNIST.get_file_dataset().download()
    assert Path(first).is_file()
    assert first != other


def test_download_keeps_files_of_the_mnist_database(tmp_path, genuine_dir):
    """azureml-opendatasets downloaded them earlier; the sample must not replace them."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes((genuine_dir / name).read_bytes())
    MNIST.get_file_dataset().download(tmp_path, overwrite=True)
    for name in NAMES:
        assert (folder / name).read_bytes() == (genuine_dir / name).read_bytes()


def test_other_calls_raise_not_implemented_with_their_name():
    with pytest.raises(NotImplementedError, match=r"501 .* mount\(\)"):
        MNIST.get_file_dataset().mount()
    with pytest.raises(NotImplementedError, match="get_tabular_dataset"):
        MNIST.get_tabular_dataset()
    with pytest.raises(ImportError, match="Diabetes is not available"):
        from mnist_deploy.data.open_datasets import Diabetes  # noqa: F401
    assert not hasattr(open_datasets, "__path__")
