"""A classifier whose script returns the probability of each class: an array of shape (n, k)."""

from importlib.metadata import version

import joblib
import numpy as np
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import mnist_deploy as md

ws = md.connect_workspace()

X, y = load_iris(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
classifier = LogisticRegression(max_iter=1000).fit(X_train, y_train)
joblib.dump(classifier, "iris.pkl")
model = Model.register(ws, model_path="iris.pkl", model_name="iris")

env = Environment("iris-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11",
    pip_packages=["azureml-defaults", f"scikit-learn=={version('scikit-learn')}"],
)

inference_config = md.build_inference_config(env, "score_probabilities.py")
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), name="iris-svc")
with md.closing_service(service):
    probabilities = md.call_service(service, X_test)
    print("shape:", probabilities.shape)
    print("equal to the local ones:", np.allclose(probabilities, classifier.predict_proba(X_test)))
    print(f"accuracy: {(probabilities.argmax(axis=1) == y_test).mean():.4f}")
