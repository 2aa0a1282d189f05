"""The script that answers for an MLflow model without code: requests as Azure documents them."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mnist_deploy.local.scoring import mlflow_model

pandas = pytest.importorskip("pandas")

ROWS = np.random.default_rng(0).random((30, 4))
LABELS = np.arange(30) % 3
COLUMNS = ["a", "b", "c", "d"]
TABLE = pandas.DataFrame(ROWS, columns=COLUMNS)
SPLIT = {"columns": COLUMNS, "index": [5, 6], "data": ROWS[:2].tolist()}

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore"),  # of MLflow and of scikit-learn, about names
]


@pytest.fixture(scope="module")
def pyfunc():
    return pytest.importorskip("mlflow.pyfunc")  # takes seconds: not during the collection


@pytest.fixture
def serve(tmp_path, monkeypatch, pyfunc):
    """Save a model with a signature made of examples, and return what sends it a request."""

    def start(model, inputs=None, output=None, params=None, folder="model"):
        from mlflow.models import infer_signature

        signature = None if inputs is None else infer_signature(inputs, output, params)
        if isinstance(model, pyfunc.PythonModel):
            pyfunc.save_model(tmp_path / folder, python_model=model, signature=signature)
        else:
            import mlflow.sklearn

            options = {"signature": signature, "serialization_format": "cloudpickle"}
            mlflow.sklearn.save_model(model, tmp_path / folder, **options)
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
        mlflow_model.init()
        return lambda **request: mlflow_model.run(json.dumps(request))

    return start


@pytest.fixture(scope="module")
def classifier():
    return LogisticRegression().fit(ROWS, LABELS)


@pytest.mark.parametrize("inputs", [None, ROWS, TABLE], ids=["none", "tensor", "table"])
def test_classifier_labels_rows_in_every_documented_form(serve, classifier, inputs):
    ask = serve(classifier, inputs, LABELS)
    expected = classifier.predict(ROWS[:2]).tolist()
    assert ask(input_data=SPLIT) == expected
    assert ask(input_data=ROWS[:2].tolist()) == expected
    assert ask(input_data=TABLE[:2].to_dict("records")) == expected


def test_named_tensors_reach_the_model_under_their_names(serve, pyfunc):
    class Sum(pyfunc.PythonModel):
        def predict(self, context, model_input):
            return {"sum": model_input["x"].sum(axis=1) + model_input["y"]}

    ask = serve(Sum(), {"x": ROWS, "y": ROWS[:, 0]}, {"sum": ROWS[:, 0]})
    assert ask(input_data={"x": [[1, 2, 3, 4]], "y": [0.5]}) == {"sum": [10.5]}


def test_params_reach_the_model(serve, pyfunc):
    class Scale(pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input * params["factor"]

    ask = serve(Scale(), TABLE, TABLE, {"factor": 1.0})
    assert ask(input_data=SPLIT)[1]["d"] == pytest.approx(ROWS[1, 3])
    assert ask(input_data=SPLIT, params={"factor": 3.0})[1]["d"] == pytest.approx(3 * ROWS[1, 3])


def test_table_becomes_records_and_missing_numbers_null(serve, pyfunc):
    class Gap(pyfunc.PythonModel):
        def predict(self, context, model_input):
            return pandas.DataFrame({"value": [1.0, float("nan")]})

    assert serve(Gap())(input_data=[1, 2]) == [{"value": 1.0}, {"value": None}]


def test_mapping_of_columns_is_a_table_where_the_signature_has_columns(serve, classifier):
    ask = serve(classifier, TABLE, LABELS)
    expected = classifier.predict(ROWS[:2]).tolist()
    assert ask(input_data=TABLE[:2].to_dict("list")) == expected


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, 'expected {"input_data": {"columns": […]'),
        ({"data": [[1, 2, 3, 4]]}, 'expected {"input_data"'),
        ({"input_data": [[1, 2, 3, 4]], "parameters": {}}, "unknown keys parameters"),
        ({"input_data": 3}, "expected"),
        ({"input_data": []}, "expected"),
        ({"input_data": [[1, 2]]}, "4 columns passed"),
        ({"input_data": [{"a": 1}]}, "missing inputs"),
        ({"input_data": [["one", 2, 3, 4]]}, "a"),
    ],
)
def test_request_that_cannot_be_scored_is_answered_400(serve, classifier, request_, reason):
    response = serve(classifier, TABLE, LABELS)(**request_)
    assert response.status_code == 400
    assert reason in json.loads(response.get_data())["message"]


def test_missing_mlflow_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    genuine = builtins.__import__

    def without_mlflow(name, *arguments, **more):
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
        return genuine(name, *arguments, **more)

    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    monkeypatch.setattr(builtins, "__import__", without_mlflow)
    with pytest.raises(RuntimeError, match=r"pip install 'mnist-deploy\[mlflow\]'"):
        mlflow_model.init()


def test_folder_without_mlmodel_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="no file MLmodel"):
        mlflow_model.init()
