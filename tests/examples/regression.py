"""A regression with missing values: numbers out, NaN sent as null with allow_nan=True."""

from importlib.metadata import version

import joblib
import numpy as np
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split

import mnist_deploy as md

ws = md.connect_workspace()

X, y = load_diabetes(return_X_y=True, scaled=False)
X[::7, 2] = np.nan  # the body mass index of some patients is unknown
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
regressor = HistGradientBoostingRegressor(random_state=0).fit(X_train, y_train)
joblib.dump(regressor, "diabetes.pkl")
model = Model.register(ws, model_path="diabetes.pkl", model_name="diabetes")

env = Environment("diabetes-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11",
    pip_packages=["azureml-defaults", f"scikit-learn=={version('scikit-learn')}"],
)

inference_config = md.build_inference_config(env, "score_regression.py")
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), name="diabetes-svc")
with md.closing_service(service):
    predicted = md.call_service(service, X_test, allow_nan=True)
    print("equal to the local ones:", np.array_equal(predicted, regressor.predict(X_test)))
    print(f"mean absolute error: {np.abs(predicted - y_test).mean():.1f}")
