"""A table with named columns of several types, sent with format="records"."""

from importlib.metadata import version

import joblib
import pandas as pd
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import mnist_deploy as md

ws = md.connect_workspace()

wines, y = load_wine(return_X_y=True, as_frame=True)
wines["colour"] = pd.cut(wines["color_intensity"], 3, labels=["pale", "medium", "deep"]).astype(str)
wines["is_strong"] = wines["alcohol"] > 13
train, test, y_train, y_test = train_test_split(wines, y, stratify=y, random_state=0)

encoder = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
pipeline = make_pipeline(encoder, RandomForestClassifier(random_state=0)).fit(train, y_train)
joblib.dump(pipeline, "table.pkl")
model = Model.register(ws, model_path="table.pkl", model_name="table")

env = Environment("table-env")
packages = [f"{name}=={version(name)}" for name in ("scikit-learn", "pandas")]
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11", pip_packages=["azureml-defaults", *packages]
)

inference_config = md.build_inference_config(env, "score_table.py")
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), name="table-svc")
with md.closing_service(service):
    columns = test.columns[::-1]  # the order of the columns does not matter
    deployed = md.call_service(service, test[columns], format="records")
    print(f"accuracy of the deployed model: {(deployed == y_test).mean():.4f}")
    print("labels that differ from the local ones:", (deployed != pipeline.predict(test)).sum())
