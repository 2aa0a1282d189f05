"""MLflow models as batch deployments without code, by the genuine SDK, with real processes.

Azure: "Deploy MLflow models in batch deployments".
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from azure.ai.ml import Input
from azure.ai.ml.entities import (
    AmlCompute,
    BatchDeployment,
    BatchEndpoint,
    Model,
    ModelBatchDeployment,
    ModelBatchDeploymentSettings,
    ResourceConfiguration,
)
from azure.core.exceptions import HttpResponseError
from sklearn.linear_model import LogisticRegression

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("quick_job_polls")]

ENDPOINT = "mlflow-batch"
TABLE = pd.DataFrame(np.random.default_rng(0).random((30, 4)), columns=list("abcd"))


@pytest.fixture(scope="module")
def model():
    return LogisticRegression().fit(TABLE, np.arange(30) % 3)


@pytest.fixture(scope="module")
def registered(client, model, tmp_path_factory):
    mlflow = pytest.importorskip("mlflow.sklearn")
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("mlflow") / "saved"
    mlflow.save_model(
        model,
        folder,
        signature=infer_signature(TABLE, model.predict(TABLE)),
        serialization_format="cloudpickle",
        pip_requirements=["mlflow", "no-such-package==1.2"],
    )
    return client.models.create_or_update(
        Model(name="mlflow-batch", path=str(folder), type="mlflow_model")
    )


@pytest.fixture(scope="module")
def batch_endpoint(client):
    client.compute.begin_create_or_update(AmlCompute(name="mlflow-cluster")).result()
    client.batch_endpoints.begin_create_or_update(BatchEndpoint(name=ENDPOINT)).result()
    yield ENDPOINT
    client.batch_endpoints.begin_delete(ENDPOINT).result()


def deployments(registered):
    """By both classes of the SDK."""
    common = {"endpoint_name": ENDPOINT, "model": registered, "compute": "mlflow-cluster"}
    settings = ModelBatchDeploymentSettings(mini_batch_size=1, max_concurrency_per_instance=2)
    yield ModelBatchDeployment(name="with-settings", settings=settings, **common)
    with pytest.warns(UserWarning, match="base class"):  # of which Microsoft's articles make use
        deployment = BatchDeployment(
            name="without-settings", resources=ResourceConfiguration(instance_count=1), **common
        )
    yield deployment


def test_folder_of_tables_is_scored_without_code(
    client, registered, model, batch_endpoint, tmp_path, capsys
):
    folder = tmp_path / "tables"
    folder.mkdir()
    TABLE[:10].to_csv(folder / "0.csv", index=False)
    TABLE[10:].to_parquet(folder / "1.parquet")
    for deployment in deployments(registered):
        made = client.batch_deployments.begin_create_or_update(deployment).result()
        assert (made.provisioning_state, made.code_configuration) == ("Succeeded", None)
        job = client.batch_endpoints.invoke(
            endpoint_name=ENDPOINT, deployment_name=made.name, input=Input(path=str(folder))
        )
        client.jobs.stream(job.name)
        printed = capsys.readouterr().out
        assert "2 files scored, 0 failed" in printed
        assert "no-such-package: required ==1.2, installed none" in printed
        client.jobs.download(job.name, download_path=tmp_path / made.name, output_name="score")
        [file] = (tmp_path / made.name).rglob("predictions.csv")
        # As Microsoft's notebook mlflow-for-batch-tabular reads it.
        found = pd.read_csv(file, names=["row", "prediction", "file"]).sort_values(["file", "row"])
        assert found["prediction"].tolist() == model.predict(TABLE).tolist()
        assert found["file"].value_counts().to_dict() == {"1.parquet": 20, "0.csv": 10}


def test_unsupported_file_fails_the_job_whatever_the_error_threshold(
    client, registered, batch_endpoint, tmp_path
):
    deployment = next(deployments(registered))
    client.batch_deployments.begin_create_or_update(deployment).result()
    (tmp_path / "a.avro").write_text("x")
    job = client.batch_endpoints.invoke(
        endpoint_name=ENDPOINT,
        deployment_name=deployment.name,
        input=Input(type="uri_file", path=str(tmp_path / "a.avro")),
    )
    with pytest.raises(Exception, match=r"Error processing input file: .*File type 'avro' is not"):
        client.jobs.stream(job.name)


def test_mlflow_model_without_its_file_is_rejected(client, folder, batch_endpoint):
    wrong = client.models.create_or_update(
        Model(name="no-mlmodel-batch", path=str(folder / "weights"), type="mlflow_model")
    )
    with pytest.raises(HttpResponseError, match="has no file MLmodel"):
        client.batch_deployments.begin_create_or_update(next(deployments(wrong))).result()
