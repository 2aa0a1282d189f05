import json
import os

import numpy as np
import onnxruntime


def init():
    global session
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "digits.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(data):
    images = np.array(json.loads(data)["data"], dtype=np.float32).reshape(-1, 8, 8)
    (labels,) = session.run(None, {"images": images})
    return labels.tolist()
