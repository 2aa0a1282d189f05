import json
import os

import joblib
import numpy as np


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "diabetes.pkl"))


def run(data):
    rows = np.array(json.loads(data)["data"], dtype=float)  # null becomes NaN
    return model.predict(rows).tolist()
