"""`download_mnist` and `load_data`, with real files and a real HTTP server."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mnist_deploy.data import (
    download_mnist,
    files,
    load_data,
    load_test_data,
    load_training_data,
    sources,
    write_sample,
)
from mnist_deploy.data.files import write_files
from mnist_deploy.data.idx import encode_idx
from mnist_deploy.data.sources import GENUINE, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from mnist_deploy.errors import DataError

OLD_NAMES = {
    TRAIN_IMAGES: "train-images.gz",
    TRAIN_LABELS: "train-labels.gz",
    TEST_IMAGES: "test-images.gz",
    TEST_LABELS: "test-labels.gz",
}


def write_idx(path: Path, array: np.ndarray) -> Path:
    write_files(path.parent, {path.name: array})
    return path


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Azure Open Datasets at a closed port; azureml-opendatasets fails."""
    monkeypatch.setattr(sources, "_AZURE", "http://127.0.0.1:1/mnist/")
    monkeypatch.setattr(sources, "_CHILD", "raise SystemExit(1)")


@pytest.fixture
def small_set(tmp_path, monkeypatch) -> Path:
    """A folder with four small files that have the checksums of MNIST in this test."""
    folder = tmp_path / "published"
    rng = np.random.default_rng(0)
    write_idx(folder / TRAIN_IMAGES, rng.integers(0, 256, (30, 28, 28), dtype=np.uint8))
    write_idx(folder / TRAIN_LABELS, rng.integers(0, 10, 30, dtype=np.uint8))
    write_idx(folder / TEST_IMAGES, rng.integers(0, 256, (20, 28, 28), dtype=np.uint8))
    write_idx(folder / TEST_LABELS, rng.integers(0, 10, 20, dtype=np.uint8))
    for name in GENUINE:
        sha256 = hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest()
        monkeypatch.setitem(sources.GENUINE, name, sha256)
        monkeypatch.setitem(files._KIND_OF, sha256, "genuine")
    files._inspect.cache_clear()
    yield folder
    files._inspect.cache_clear()


@pytest.fixture
def azure(small_set, monkeypatch):
    """A server on loopback instead of Azure Open Datasets."""
    handler = partial(QuietHandler, directory=str(small_set))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(sources, "_AZURE", f"http://127.0.0.1:{server.server_port}/")
        yield small_set
        server.shutdown()
        thread.join(10)


@pytest.fixture
def own_dir(tmp_path) -> Path:
    """A folder with four small files that are neither MNIST nor the sample."""
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        write_idx(tmp_path / "own" / images, np.zeros((5, 8, 8), np.uint8))
        write_idx(tmp_path / "own" / labels, np.arange(5, dtype=np.uint8))
    return tmp_path / "own"


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())
    }


class TestOffline:
    def test_sample_is_written_under_the_published_names(self, tmp_path, capsys):
        """And kept by a second call."""
        found = download_mnist(tmp_path / "data")
        assert found.kind == "sample"
        assert names_in(tmp_path / "data") == sorted(GENUINE)
        assert "sample" in found.source
        assert "4,000 training and 1,000 test" in found.source
        assert "ConnectionError" in found.source
        output = capsys.readouterr()
        assert output.out == f"MNIST: {found.source}.\n"
        assert output.err == ""
        before = snapshot(tmp_path / "data")
        assert download_mnist(tmp_path / "data").kind == "sample"
        assert snapshot(tmp_path / "data") == before
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_sample_is_balanced_disjoint_shuffled_and_reproducible(
        self, sample_dir, sample_data, tmp_path
    ):
        X_train, y_train, X_test, y_test = sample_data
        assert np.bincount(y_train).tolist() == [400] * 10
        assert np.bincount(y_test).tolist() == [100] * 10
        assert len(np.unique(np.vstack([X_train, X_test]), axis=0)) == 5000
        assert set(y_test[:50]) == set(range(10))
        write_sample(tmp_path)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
            p.name: p.read_bytes() for p in sample_dir.iterdir()
        }

    @pytest.mark.slow
    def test_sample_is_a_part_of_the_mnist_training_images(self, sample_data, genuine_dir):
        X_train, y_train, X_test, y_test = sample_data
        images, labels = load_training_data(genuine_dir)
        label_of = dict(zip(map(bytes, images), labels, strict=True))
        sample = zip([*X_train, *X_test], [*y_train, *y_test], strict=True)
        assert all(label_of[bytes(image)] == label for image, label in sample)

    def test_folder_that_cannot_be_created_is_named(self, tmp_path):
        (tmp_path / "data").write_text("a file")
        with pytest.raises(DataError, match=r"data cannot be written.*Choose another folder"):
            download_mnist(tmp_path / "data")


class TestAzure:
    def test_https_is_used_if_opendatasets_fails(self, azure, tmp_path, capsys):
        found = download_mnist(tmp_path / "data")
        assert found.kind == "genuine"
        assert found.source.endswith("downloaded from Azure Open Datasets (HTTPS)")
        assert names_in(tmp_path / "data") == sorted(GENUINE)
        assert load_data(found.test_images).shape == (20, 784)
        assert capsys.readouterr().err == ""

    def test_opendatasets_is_used_first_and_its_output_discarded(
        self, azure, tmp_path, monkeypatch, capfd
    ):
        monkeypatch.setattr(
            sources,
            "_CHILD",
            "import shutil, sys; print('noise'); print('noise', file=sys.stderr); "
            f"shutil.copytree({str(azure)!r}, sys.argv[1] + '/deep/down')",
        )
        found = download_mnist(tmp_path / "data")
        assert found.source.endswith("downloaded from Azure Open Datasets (azureml-opendatasets)")
        assert names_in(tmp_path / "data") == sorted(GENUINE)
        assert "noise" not in "".join(capfd.readouterr())

    def test_opendatasets_that_hangs_is_killed(self, azure, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "_CHILD", "import time; time.sleep(600)")
        monkeypatch.setattr(sources, "_CHILD_TIMEOUT", 0.3)
        assert download_mnist(tmp_path / "data").source.endswith("(HTTPS)")

    def test_sample_is_replaced_by_the_mnist_database(self, azure, sample_dir, tmp_path):
        shutil.copytree(sample_dir, tmp_path / "data")
        assert download_mnist(tmp_path / "data").kind == "genuine"
        assert len(load_test_data(tmp_path / "data")[0]) == 20
        assert download_mnist(tmp_path / "data").source.endswith("already in the folder")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-9],
            lambda content: b"<html>Sign in to the hotel's network</html>",
            lambda content: gzip.compress(encode_idx(np.zeros((20, 28, 28), np.uint8))),
        ],
        ids=["truncated", "a web page", "other digits"],
    )
    def test_file_with_another_checksum_is_discarded(self, azure, tmp_path, damage):
        (azure / TEST_IMAGES).write_bytes(damage((azure / TEST_IMAGES).read_bytes()))
        found = download_mnist(tmp_path / "data")
        assert found.kind == "sample"
        assert "Azure Open Datasets" in found.source
        assert names_in(tmp_path / "data") == sorted(GENUINE)

    def test_missing_file_on_the_server_gives_the_sample(self, azure, tmp_path):
        (azure / TRAIN_IMAGES).unlink()
        found = download_mnist(tmp_path / "data")
        assert found.kind == "sample"
        assert "HTTPError" in found.source

    def test_full_disk_is_reported_and_the_sample_kept(self, azure, sample_dir, monkeypatch):
        def fail(self, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", fail)
        before = snapshot(sample_dir)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
            download_mnist(sample_dir)
        assert snapshot(sample_dir) == before


class TestExistingFiles:
    def test_mnist_database_is_identified_and_not_changed(self, genuine_dir):
        before = snapshot(genuine_dir)
        found = download_mnist(genuine_dir)
        assert found.kind == "genuine"
        assert "60,000 training and 10,000 test images, already in the folder" in found.source
        assert snapshot(genuine_dir) == before
        X, y = load_test_data(genuine_dir)
        assert X.shape == (10000, 784)
        assert y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]

    @pytest.mark.parametrize("names", [{}, OLD_NAMES], ids=["the names", "the names of 2018"])
    def test_mnist_database_below_a_sample_is_preferred(self, small_set, sample_dir, names):
        for name, old in names.items():
            (small_set / name).rename(small_set / old)
        shutil.copytree(sample_dir, small_set.parent, dirs_exist_ok=True)
        found = download_mnist(small_set.parent)
        assert found.kind == "genuine"
        assert found.test_labels == small_set / names.get(TEST_LABELS, TEST_LABELS)
        assert len(load_training_data(small_set.parent)[0]) == 30
        assert len(load_test_data(small_set.parent)[0]) == 20

    def test_files_of_the_user_are_identified_and_not_changed(self, azure, own_dir):
        before = snapshot(own_dir)
        found = download_mnist(own_dir)
        assert found.kind == "own"
        assert found.source.startswith("files of your own, 5 training and 5 test images")
        assert load_training_data(own_dir)[0].shape == (5, 64)
        assert snapshot(own_dir) == before

    @pytest.mark.parametrize("missing", [TEST_IMAGES, TRAIN_LABELS])
    def test_incomplete_set_is_reported_and_not_changed(self, azure, own_dir, missing):
        (own_dir / missing).unlink()
        before = snapshot(own_dir)
        with pytest.raises(DataError, match=rf"{missing} is missing.*choose another folder"):
            download_mnist(own_dir)
        assert snapshot(own_dir) == before

    def test_truncated_file_is_named_and_not_changed(self, azure):
        content = (azure / TEST_IMAGES).read_bytes()
        (azure / TEST_IMAGES).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=rf"{TEST_IMAGES}.*damaged.*delete the file"):
            download_mnist(azure)
        with pytest.raises(DataError, match=rf"{TEST_IMAGES}.*truncated or damaged"):
            load_test_data(azure)

    def test_changed_file_is_read_again(self, small_set):
        """The user's training images may be used with the test images of MNIST."""
        assert download_mnist(small_set).kind == "genuine"
        write_idx(small_set / TRAIN_IMAGES, np.zeros((30, 28, 28), np.uint8))
        assert download_mnist(small_set).kind == "own"

    def test_files_of_two_sets_are_rejected(self, small_set, sample_dir):
        shutil.copy(sample_dir / TEST_IMAGES, small_set)
        with pytest.raises(DataError, match=r"inconsistent: .* 1000 test images .* and 20 labels"):
            load_test_data(small_set)
        shutil.copy(sample_dir / TEST_LABELS, small_set)
        with pytest.raises(DataError, match=r"inconsistent: .*\(genuine\).* \(sample\)"):
            download_mnist(small_set)

    def test_empty_folder_is_answered_with_download_mnist(self, tmp_path):
        with pytest.raises(DataError, match=r"holds no MNIST files.*download_mnist\("):
            load_test_data(tmp_path)
        with pytest.raises(DataError, match=r"holds no MNIST files.*download_mnist\("):
            load_training_data(tmp_path / "nowhere")


class TestLoadData:
    def test_images_and_labels_have_the_tutorials_shapes(self, sample_dir, sample_data):
        images = load_data(sample_dir / TEST_IMAGES, False)
        labels = load_data(sample_dir / TEST_LABELS, True)
        assert (images.shape, images.dtype, images.max()) == ((1000, 784), np.uint8, 255)
        assert (labels.shape, labels.dtype) == ((1000, 1), np.uint8)
        _, _, X_test, y_test = sample_data
        assert X_test.dtype == np.float64
        assert (X_test == images / 255.0).all()
        assert (y_test == labels[:, 0]).all()
        images[0, 0] = 1  # a writable copy, not a view of the file

    def test_uncompressed_and_empty_files_are_read(self, tmp_path):
        (tmp_path / "plain").write_bytes(encode_idx(np.ones((2, 3, 4), np.uint8)))
        assert load_data(tmp_path / "plain").shape == (2, 12)
        assert load_data(write_idx(tmp_path / "x.gz", np.ones((0, 28, 28), np.uint8))).shape == (
            0,
            784,
        )

    @pytest.mark.parametrize(
        ("content", "label", "message"),
        [
            (b"", False, "not an IDX file"),
            (b"PK\x03\x04 a zip file", False, "not an IDX file"),
            (gzip.compress(b"no IDX", mtime=0), False, "not an IDX file"),
            (
                gzip.compress(encode_idx(np.ones(3, np.uint8)), mtime=0)[:-4],
                True,
                "truncated or damaged",
            ),
            (encode_idx(np.ones((2, 2, 2), np.uint8))[:-1], False, "truncated or damaged"),
            (encode_idx(np.ones(3, np.uint8)), False, "expected images"),
            (encode_idx(np.ones((2, 2, 2), np.uint8)), True, "expected labels"),
            (encode_idx(np.ones((2, 2, 2))), False, "float64"),
        ],
    )
    def test_other_content_is_rejected_with_the_file_name(self, tmp_path, content, label, message):
        path = tmp_path / "digits.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"digits.gz.*{message}"):
            load_data(path, label)
        with pytest.raises(DataError, match=r"nowhere\.gz cannot be read: No such file"):
            load_data(tmp_path / "nowhere.gz")


def test_old_file_is_kept_if_the_disk_is_full(tmp_path, monkeypatch):
    path = write_idx(tmp_path / "x.gz", np.arange(3, dtype=np.uint8))
    before = path.read_bytes()

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_idx(path, np.arange(4, dtype=np.uint8))
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["x.gz"]


@pytest.mark.processes
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="azureml-opendatasets needs Python < 3.12")
def test_opendatasets_has_the_call_that_the_child_uses():
    """Its result needs a network."""
    found = subprocess.run(
        [sys.executable, "-c", "from azureml.opendatasets import MNIST; MNIST.get_file_dataset"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
