"""fit_model and save_model, against scikit-learn's own one-vs-rest and the published figures."""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.multiclass import OneVsRestClassifier

from mnist_deploy.data import load_test_data
from mnist_deploy.training import fit_model, save_model

PUBLISHED = """
    960    0    1    2    1    5    6    3    1    1
      0 1112    3    1    0    1    5    1   12    0
      9    8  920   20   10    4   10   11   37    3
      4    0   17  921    2   21    4   12   20    9
      1    2    5    3  915    0   10    2    6   38
     10    2    0   41   10  770   17    7   28    7
      9    3    7    2    6   20  907    1    3    0
      2    7   22    5    8    1    1  950    5   27
     10   15    5   21   15   27    7   11  851   12
      7    8    2   13   32   13    0   24   12  898
"""


@pytest.fixture(scope="module")
def sample_model(sample_data):
    X_train, y_train, _, _ = sample_data
    return fit_model(X_train, y_train)


def test_the_model_is_the_one_that_the_tutorial_registers(sample_model, sample_data):
    _, _, X_test, y_test = sample_data
    assert type(sample_model) is LogisticRegression
    assert sample_model.coef_.shape == (10, 784)
    assert sample_model.intercept_.shape == (10,)
    assert sample_model.classes_.tolist() == list(range(10))
    assert sample_model.get_params()["C"] == 1 / 0.8
    assert 0.89 < sample_model.score(X_test, y_test) < 0.91
    assert "LogisticRegression" in sample_model._repr_html_()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_labels_and_scores_are_those_of_one_vs_rest(sample_data, n_classes):
    X_train, y_train, X_test, _ = sample_data
    few = np.flatnonzero(y_train < n_classes)[:600]
    model = fit_model(X_train[few], y_train[few], regularization=2)
    expected = OneVsRestClassifier(
        LogisticRegression(C=0.5, solver="liblinear", random_state=42)
    ).fit(X_train[few], y_train[few])
    assert (model.predict(X_test) == expected.predict(X_test)).all()
    np.testing.assert_allclose(
        model.decision_function(X_test), expected.decision_function(X_test), atol=0.05
    )


def test_probabilities_follow_the_scores(sample_model, sample_data):
    _, _, X_test, y_test = sample_data
    probabilities = sample_model.predict_proba(X_test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == sample_model.predict(X_test)).all()
    confidence, right = probabilities.max(axis=1), sample_model.predict(X_test) == y_test
    assert confidence[right].mean() > confidence[~right].mean() + 0.1


def test_two_classes_make_an_ordinary_binary_model(sample_data):
    X_train, y_train, _, _ = sample_data
    pair = (y_train == 3) | (y_train == 8)
    model = fit_model(X_train[pair], y_train[pair])
    assert model.coef_.shape == (1, 784)
    assert model.classes_.tolist() == [3, 8]
    assert model.score(X_train[pair], y_train[pair]) > 0.97


def test_any_table_with_any_labels(tmp_path):
    wine = load_wine()
    names = wine.target_names[wine.target]
    model = fit_model(wine.data, names)
    assert model.classes_.tolist() == ["class_0", "class_1", "class_2"]
    assert model.score(wine.data, names) > 0.95
    assert (fit_model(csr_matrix(wine.data), names).coef_ == model.coef_).all()


def test_stronger_regularization_makes_smaller_coefficients(sample_model, sample_data):
    strong = fit_model(*sample_data[:2], regularization=80)
    assert np.abs(strong.coef_).sum() < np.abs(sample_model.coef_).sum() / 2


def test_the_input_is_left_as_it_was(sample_data):
    X, y = (array[:200].copy() for array in sample_data[:2])
    before = X.copy(), y.copy()
    fit_model(X, y)
    np.testing.assert_equal((X, y), before)


@pytest.mark.parametrize(
    ("X", "y", "regularization", "said"),
    [
        (np.eye(3), [1, 1, 1], 0.8, "y has one class only, 1"),
        (np.eye(3), [1, 2, 1], 0, "regularization is 0, expected more than 0"),
        (np.eye(3), [1, 2, 1], float("nan"), "regularization is nan"),
        (np.eye(3), [1, 2], 0.8, "inconsistent numbers of samples"),
        (np.full((3, 2), np.nan), [1, 2, 1], 0.8, "contains NaN"),
    ],
)
def test_what_cannot_be_fitted_is_refused(X, y, regularization, said):
    with pytest.raises(ValueError, match=said):
        fit_model(X, y, regularization)


def test_a_saved_model_is_the_same_model(sample_model, sample_data, tmp_path):
    path = save_model(sample_model, tmp_path / "outputs" / "sklearn_mnist_model.pkl")
    assert path == tmp_path / "outputs" / "sklearn_mnist_model.pkl"
    X_test = sample_data[2]
    assert (joblib.load(path).predict_proba(X_test) == sample_model.predict_proba(X_test)).all()


def test_a_model_that_cannot_be_saved_leaves_the_old_one(sample_model, tmp_path):
    path = save_model(sample_model, tmp_path / "model.pkl")
    before = path.read_bytes()
    sealed = LogisticRegression()
    sealed.callback = lambda: None  # no pickle of this
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_model(sealed, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_the_published_figures_on_the_genuine_images(genuine_model, genuine_dir):
    X_test, y_test = load_test_data(genuine_dir)
    labels = genuine_model.predict(X_test)
    assert np.average(labels == y_test) == pytest.approx(0.9204, abs=0.0003)
    published = np.array(PUBLISHED.split(), dtype=int).reshape(10, 10)
    assert np.abs(confusion_matrix(y_test, labels) - published).sum() <= 8
