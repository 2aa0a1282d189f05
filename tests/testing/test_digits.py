"""The small model that a workspace of the kit starts with, and the small set of digits."""

from __future__ import annotations

import io

import joblib
import numpy as np
import pytest

import mnist_deploy as md
from mnist_deploy.testing.digits import pickled_model


def test_model_recognizes_digits(mnist_sample):
    model = joblib.load(io.BytesIO(pickled_model()))
    assert model.score(mnist_sample.images, mnist_sample.labels) > 0.8


def test_sample_is_stratified_and_genuine(mnist_sample):
    assert mnist_sample.images.shape == (100, 784)
    assert mnist_sample.images.min() == 0
    assert mnist_sample.images.max() == 1
    assert list(np.bincount(mnist_sample.labels)) == [10] * 10


def test_sample_is_read_only(mnist_sample):
    with pytest.raises(ValueError, match="read-only"):
        mnist_sample.images[0, 0] = 1


def test_sample_is_written_to_files(mnist_sample):
    images, labels = md.load_test_data(mnist_sample.data_dir)
    np.testing.assert_array_equal(images, mnist_sample.images)
    np.testing.assert_array_equal(labels, mnist_sample.labels)
    assert list(np.bincount(md.load_training_data(mnist_sample.data_dir)[1])) == [30] * 10


def test_sample_trains_a_model(mocked_workspace, mnist_sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    md.fetch_model(mocked_workspace).delete()
    model = md.prepare_workspace(mocked_workspace, mnist_sample.data_dir)
    assert model.id == "sklearn_mnist:2"
    assert float(model.properties["accuracy"]) > 0.7
