"""Notebooks in the style of Microsoft's other deployment notebooks, run through ``exec``:
Application Insights, AKS, AKS with SSL.

They were written for these tests and import nothing of this project.
"""

from __future__ import annotations

import pytest
from plain_notebooks import run_notebook, write_notebook

pytestmark = pytest.mark.processes

WORKSPACE = """
import azureml.core
from azureml.core import Workspace
from azureml.core.model import Model

print("SDK version:", azureml.core.VERSION)
ws = Workspace.from_config()
print(ws.name, ws.resource_group, ws.location, ws.subscription_id, sep="\\n")
"""

TRAIN = """
from sklearn.datasets import load_diabetes
from sklearn.externals import joblib
from sklearn.linear_model.ridge import Ridge

dataset_x, dataset_y = load_diabetes(return_X_y=True)
joblib.dump(Ridge(alpha=0.5).fit(dataset_x, dataset_y), "regression.pkl")
joblib.dump(Ridge(alpha=5.0).fit(dataset_x, dataset_y), "flatter.pkl")
"""

REGISTER = """
model = Model.register(
    workspace=ws,
    model_path="regression.pkl",
    model_name="diabetes_model",
    tags={"area": "diabetes", "type": "regression"},
    description="Ridge regression of the progress of diabetes",
)
"""

SCRIPT = """
%%writefile score.py
import json
import numpy as np
from sklearn.externals import joblib
from azureml.core.model import Model

def init():
    global model
    model = joblib.load(Model.get_model_path("diabetes_model"))

def run(raw_data):
    try:
        data = np.array(json.loads(raw_data)["data"])
        print("rows to score:", len(data))
        return {"result": model.predict(data).tolist()}
    except Exception as error:
        return {"error": str(error)}
"""

ENVIRONMENT = """
from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.model import InferenceConfig

environment = Environment("deploy-to-cloud-env")
environment.python.conda_dependencies = CondaDependencies.create(
    conda_packages=["numpy==1.19.5", "scikit-learn==0.22.1"], pip_packages=["azureml-defaults"]
)
inference_config = InferenceConfig(entry_script="score.py", environment=environment)
"""

SERVE_TEST_SAMPLE = """
import json

test_sample = json.dumps({"data": dataset_x[:2].tolist()})
prediction = service.run(input_data=test_sample)
print(prediction)
"""

CLUSTER = """
from azureml.core.compute import AksCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException

aks_name = "my-aks-9"
try:
    aks_target = ComputeTarget(workspace=ws, name=aks_name)
    print("Found an existing cluster, use it.")
except ComputeTargetException:
    prov_config = AksCompute.provisioning_configuration()
    aks_target = ComputeTarget.create(
        workspace=ws, name=aks_name, provisioning_configuration=prov_config
    )

if aks_target.get_status() != "Succeeded":
    aks_target.wait_for_completion(show_output=True)
print(aks_target.provisioning_state, aks_target.provisioning_errors)
"""

DEPLOY_TO_AKS = """
%%time
from azureml.core.webservice import AksWebservice, Webservice

aks_config = AksWebservice.deploy_configuration()
service = Model.deploy(
    workspace=ws,
    name="aks-service-1",
    models=[model],
    inference_config=inference_config,
    deployment_config=aks_config,
    deployment_target=aks_target,
)
service.wait_for_deployment(show_output=True)
print(service.state)
print(service.get_logs())
"""

CALL_WITH_A_KEY = """
import requests

key1, key2 = service.get_keys()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key1}
resp = requests.post(service.scoring_uri, data=test_sample, headers=headers)
print("POST to url", service.scoring_uri)
print("prediction:", resp.text)
log = service.get_logs()
"""

CLEAN_UP_AKS = """
%%time
service.delete()
model.delete()
aks_target.delete()
"""

PROBE = """
print("PROBE" + json.dumps({
    "state": state,
    "predicted": [prediction["result"], resp.json()["result"]],
    "expected": joblib.load("regression.pkl").predict(dataset_x[:2]).tolist(),
    "without a key": requests.post(service.scoring_uri, data=test_sample).status_code,
    "logged": "rows to score: 2" in log,
    "uri": service.scoring_uri,
}))
"""

ON_AKS = [
    WORKSPACE,
    TRAIN,
    REGISTER,
    SCRIPT,
    ENVIRONMENT,
    CLUSTER,
    DEPLOY_TO_AKS,
    SERVE_TEST_SAMPLE,
    CALL_WITH_A_KEY,
    """
    service.regen_key("Primary")
    assert service.get_keys()[0] != key1
    aks_config = AksWebservice.deploy_configuration(
        autoscale_enabled=False, num_replicas=2, cpu_cores=0.5, memory_gb=0.5, tags={"a": "b"}
    )
    service.update(num_replicas=2, autoscale_enabled=False, description="two replicas")
    service.wait_for_deployment(show_output=True)
    state = service.state
    """,
    PROBE,
    CLEAN_UP_AKS,
]

WITH_SSL = [
    WORKSPACE,
    TRAIN,
    REGISTER,
    SCRIPT,
    ENVIRONMENT,
    """
    from azureml.core.compute import AksCompute, ComputeTarget

    prov_config = AksCompute.provisioning_configuration()
    # A subdomain of the region's domain, with Microsoft's certificate.
    prov_config.enable_ssl(leaf_domain_label="contoso", overwrite_existing_domain=True)
    aks_target = ComputeTarget.create(
        workspace=ws, name="aks-ssl-1", provisioning_configuration=prov_config
    )
    aks_target.wait_for_completion(show_output=True)
    """,
    DEPLOY_TO_AKS,
    SERVE_TEST_SAMPLE,
    CALL_WITH_A_KEY,
    "state = service.state",
    PROBE,
    CLEAN_UP_AKS,
]


APP_INSIGHTS = [
    WORKSPACE,
    TRAIN,
    REGISTER,
    SCRIPT,
    ENVIRONMENT,
    """
    from azureml.core.webservice import AciWebservice

    aci_config = AciWebservice.deploy_configuration(
        cpu_cores=1, memory_gb=1, tags={"area": "diabetes"}, enable_app_insights=True
    )
    aci_service = Model.deploy(
        ws, "my-aci-service-4", [model], inference_config, aci_config
    )
    aci_service.wait_for_deployment(True)
    print(aci_service.state)
    """,
    """
    import json

    test_sample = json.dumps({"data": dataset_x[:2].tolist()})
    if aci_service.state == "Healthy":
        print(aci_service.run(test_sample))
    aci_insights = [aci_service.enable_app_insights]
    aci_service.update(enable_app_insights=False)
    aci_service.wait_for_deployment(True)
    aci_insights.append(aci_service.enable_app_insights)
    aci_service.delete()
    """,
    CLUSTER,
    """
    from azureml.core.webservice import AksWebservice

    aks_config = AksWebservice.deploy_configuration(enable_app_insights=True)
    service = Model.deploy(
        ws, "aks-w-dc5", [model], inference_config, aks_config, deployment_target=aks_target
    )
    service.wait_for_deployment(show_output=True)
    """,
    SERVE_TEST_SAMPLE,
    CALL_WITH_A_KEY,
    """
    state = [service.state, *aci_insights, service.enable_app_insights]
    service.update(enable_app_insights=False)
    service.wait_for_deployment(show_output=True)
    state.append(service.enable_app_insights)
    """,
    PROBE,
    CLEAN_UP_AKS,
]


@pytest.fixture
def run(tmp_path):
    """Run a notebook, and return the values of its probe."""

    def start(cells: list[str]) -> dict:
        notebook = tmp_path / "deployment" / "notebook.ipynb"
        write_notebook(notebook, cells, "python36")
        return run_notebook(notebook, tmp_path / "home", "--bare")[1]

    return start


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        pytest.param(ON_AKS, "Healthy", id="on AKS"),
        pytest.param(WITH_SSL, "Healthy", id="with SSL"),
        pytest.param(APP_INSIGHTS, ["Healthy", True, False, True, False], id="App Insights"),
    ],
)
def test_notebook_deploys_to_aks_and_gets_predictions_with_a_key(run, cells, state):
    values = run(cells)
    assert values["state"] == state
    assert values["predicted"] == [values["expected"]] * 2
    assert values["without a key"] == 401
    assert values["uri"].startswith("http://127.0.0.1:")
    assert values["logged"]
