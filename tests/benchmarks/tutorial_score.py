"""A scoring script as the tutorial has it: json, a list of lists, ``model.predict``."""

import json
import os

import joblib
import numpy as np


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "sklearn_mnist_model.pkl"))


def run(raw_data):
    images = np.array(json.loads(raw_data)["data"])
    return model.predict(images).tolist()
