"""Save a joblib model as an MLflow model: ``python mlflow_model.py MODEL FOLDER``."""

import sys

import joblib
import mlflow.sklearn

model, folder = sys.argv[1:]
# No requirements to find out or install: `mlflow models serve` runs in this environment.
mlflow.sklearn.save_model(joblib.load(model), folder, pip_requirements=["scikit-learn"])
