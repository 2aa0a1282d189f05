from importlib.metadata import version

import joblib
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import mnist_deploy as md

ws = md.connect_workspace()

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
forest = RandomForestClassifier(random_state=0).fit(X_train, y_train)
joblib.dump(forest, "wine.pkl")
model = Model.register(ws, model_path="wine.pkl", model_name="wine")

env = Environment("wine-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11",
    pip_packages=["azureml-defaults", f"scikit-learn=={version('scikit-learn')}"],
)
env.register(ws)

service = md.deploy_to_aci(
    ws,
    model,
    md.build_inference_config(env, "score_wine.py"),
    md.build_aci_config(tags={"data": "wine"}, description="Tells wines by their chemistry"),
    name="wine-svc",
)
with md.closing_service(service):
    deployed = md.call_service(service, X_test)
    print(f"accuracy of the deployed model: {(deployed == y_test).mean():.4f}")
    print("labels that differ from the local ones:", (deployed != forest.predict(X_test)).sum())
