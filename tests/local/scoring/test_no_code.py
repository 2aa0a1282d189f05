"""The entry script of a scikit-learn model that was deployed without one."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from mnist_deploy.local.scoring import no_code

ROWS = np.random.default_rng(0).random((30, 4))
LABELS = np.arange(30) % 3


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve a model, and return a function that sends a request to it."""

    def start(model):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
        no_code.init()
        return lambda **request: no_code.run(json.dumps(request))

    return start


def test_model_without_probabilities_predicts(serve):
    model = LinearRegression().fit(ROWS, LABELS)
    assert serve(model)(data=ROWS.tolist()) == {"predict": model.predict(ROWS).tolist()}


def test_outputs_of_a_multi_output_model_all_have_probabilities(serve):
    model = MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.c_[LABELS, LABELS > 1])
    answer = json.loads(json.dumps(serve(model)(data=ROWS.tolist())))
    assert [np.shape(each) for each in answer["predict_proba"]] == [(30, 3), (30, 2)]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, 'expected {"data": [[…], …]}'),
        ({"data": [[1, 2]]}, "2 features"),
        ({"data": [["a", 1, 2, 3]]}, "numeric"),
        ({"data": [[1], [2, 3]]}, "inhomogeneous"),
        ({"data": [[1, 2, 3, 4]], "method": "__class__"}, "'__class__' is not among"),
        ({"data": [[1, 2, 3, 4]], "method": ["predict"]}, "is not among"),
    ],
)
def test_request_that_cannot_be_scored_is_400_with_the_reason(serve, request_, reason):
    answer = serve(LogisticRegression().fit(ROWS, LABELS))(**request_)
    assert answer.status_code == 400
    assert reason in answer.get_json(force=True)["message"]


def test_model_that_cannot_predict_or_is_not_one_file_fails(serve, tmp_path):
    with pytest.raises(RuntimeError, match="StandardScaler has no predict method"):
        serve(StandardScaler())
    (tmp_path / "more").write_text("")
    with pytest.raises(RuntimeError, match=r"must be one file.* has 2"):
        serve(LinearRegression().fit(ROWS, LABELS))
