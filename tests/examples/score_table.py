import json
import os

import joblib
import pandas as pd


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "table.pkl"))


def run(data):
    table = pd.DataFrame(json.loads(data)["data"])
    return model.predict(table[model.feature_names_in_]).tolist()
