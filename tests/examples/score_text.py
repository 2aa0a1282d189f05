import json
import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "text.pkl"))


def run(data):
    return model.predict(json.loads(data)["data"]).tolist()
