import json
import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "iris.pkl"))


def run(data):
    return model.predict_proba(json.loads(data)["data"]).tolist()
