"""The batch scoring script of an MLflow model without code: files and lines as Azure documents.

Articles: "Deploy MLflow models in batch deployments" and "Image processing with batch model
deployments", their sections on MLflow models.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from mnist_deploy.local.scoring import mlflow_batch
from mnist_deploy.local.scoring.batch import list_files
from mnist_deploy.local.scoring.batch_worker import score
from mnist_deploy.local.scoring.mlflow_batch import InputFileError

pd = pytest.importorskip("pandas")
pyfunc = pytest.importorskip("mlflow.pyfunc")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore"),  # of MLflow, about type hints and integers
]

TABLE = pd.DataFrame({"a": [1.5, 2.0], "b": [1, 2], "code": ["01", "02"]})


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Save a function as an MLflow model, and load it as a job does."""

    def load(predict, signature=None):
        class Model(pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):
                return predict(model_input)

        pyfunc.save_model(tmp_path / "model", python_model=Model(), signature=signature,
                          pip_requirements=["mlflow"])  # fmt: skip
        monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
        mlflow_batch.init()

    return load


def columns_signature(table=TABLE):
    from mlflow.models import infer_signature

    return infer_signature(table)


def tensor_signature(dtype, *shape):
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(inputs=Schema([TensorSpec(np.dtype(dtype), shape)]))


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.PQT"])
def test_table_has_a_line_for_each_row(load, tmp_path, name):
    load(lambda table: table["a"] + table["b"] + table["code"].str.len(), columns_signature())
    write = TABLE.to_csv if name == "t.csv" else TABLE.to_parquet
    write(tmp_path / name, index=False)
    [text] = mlflow_batch.run([str(tmp_path / name)])
    assert rows(text) == [["0", "4.5", name], ["1", "6.0", name]]


def test_values_of_a_csv_file_get_the_types_of_the_signature(load, tmp_path):
    """The column `a` holds whole numbers, and `code` what looks like numbers."""
    load(lambda table: [str(list(table.dtypes.map(str))) + table["code"][0]], columns_signature())
    (tmp_path / "t.csv").write_text("code,b,a\n01,5,3\n")
    [text] = mlflow_batch.run([str(tmp_path / "t.csv")])
    assert rows(text) == [["0", "['float64', 'int64', 'object']01", "t.csv"]]


def test_table_without_signature_reaches_the_model_as_it_is_read(load, tmp_path):
    load(lambda table: table["code"])
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    [text] = mlflow_batch.run([str(tmp_path / "t.csv")])
    assert [line[1] for line in rows(text)] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a,b,code\n1,value,x\n", "invalid literal for int"),
        ("a,code\n1,x\n", "missing inputs"),
        ("", "No columns to parse"),
    ],
)
def test_file_that_does_not_fit_the_signature_fails_the_job(load, tmp_path, content, reason):
    load(len, columns_signature())
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputFileError, match=r"Error processing input file: '.*t\.csv'\. .*"):
        mlflow_batch.run([str(tmp_path / "t.csv")])
    message = score(mlflow_batch.run, [str(tmp_path / "t.csv")], True)
    assert message.fails_job
    assert reason in message.error


def test_file_of_another_type_fails_the_job(load, tmp_path):
    load(len)
    (tmp_path / "t.avro").write_bytes(b"x")
    with pytest.raises(InputFileError, match="File type 'avro' is not supported, only "):
        mlflow_batch.run([str(tmp_path / "t.avro")])


def test_error_of_the_model_fails_its_mini_batch_only(load, tmp_path):
    load(lambda table: table["missing"])
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    message = score(mlflow_batch.run, [str(tmp_path / "t.csv")], True)
    assert "KeyError" in message.error
    assert not message.fails_job


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (None, ["(28, 28)", "uint8"]),
        (("float32", -1, 784), ["(1, 784)", "float32"]),
        (("uint8", -1, 28, 28, 1), ["(1, 28, 28, 1)", "uint8"]),
        (("uint8", -1, -1, -1), ["(1, 28, 28)", "uint8"]),
    ],
)
@pytest.mark.parametrize("name", ["d.png", "d.bmp", "d.GIF"])
def test_image_reaches_the_model_in_the_shape_of_its_signature(
    load, tmp_path, name, signature, expected
):
    load(
        lambda pixels: pd.DataFrame([[str(pixels.shape), pixels.dtype, pixels.sum()]]),
        signature and tensor_signature(*signature),
    )
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    Image.fromarray(pixels).save(tmp_path / name)
    [text] = mlflow_batch.run([str(tmp_path / name)])
    [[shape, dtype, total, file]] = rows(text)
    assert ([shape, dtype], file) == (expected, name)
    assert float(total) == pixels.sum() or name == "d.GIF"


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (tensor_signature("uint8", -1, 500), "cannot reshape"),
        (tensor_signature("uint8", -1, -1, -1, 3), "does not fit"),
        (columns_signature(), "must be a tensor"),
    ],
)
def test_image_that_does_not_fit_the_signature_fails_the_job(load, tmp_path, signature, reason):
    load(len, signature)
    Image.new("L", (28, 28)).save(tmp_path / "d.png")
    with pytest.raises(InputFileError, match=reason):
        mlflow_batch.run([str(tmp_path / "d.png")])


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (np.array([[0.25, 0.75], [1.0, 0.0]]), [["0", "[0.25, 0.75]"], ["1", "[1.0, 0.0]"]]),
        (pd.DataFrame({"x": [1, 2], "y": ["a,b", None]}), [["0", "1", "a,b"], ["1", "2", ""]]),
        ({"x": np.array([1]), "y": np.zeros((1, 1))}, [["0", "1", "[0.0]"]]),
        (["a", "b"], [["0", "a"], ["1", "b"]]),
        ("one text", [["0", "one text"]]),
    ],
)  # fmt: skip
def test_prediction_is_one_column_and_a_table_several(predicted, expected):
    text = mlflow_batch.write_lines(predicted, "f.csv", has_row_numbers=True)
    assert rows(text) == [[*line, "f.csv"] for line in expected]


def test_folders_below_the_input_are_not_explored(tmp_path, capsys):
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("in/b.csv", "in/a.csv", "in/below/c.csv"):
        (tmp_path / name).touch()
    names = [str(tmp_path / "in" / name) for name in ("a.csv", "b.csv", "below/c.csv")]
    assert list(list_files([str(tmp_path / "in")], is_nested=False)) == names[:2]
    assert "1 folders in the input are not explored" in capsys.readouterr().out
    assert list(list_files([str(tmp_path / "in")], is_nested=True)) == names
