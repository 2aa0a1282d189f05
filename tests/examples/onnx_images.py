"""An ONNX model of images: its script takes pixels as the JSON of intensities."""

from importlib.metadata import version

import numpy as np
import onnx
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import mnist_deploy as md

ws = md.connect_workspace()

images, y = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8) / 16
train, test, y_train, y_test = train_test_split(images, y, stratify=y, random_state=0)
classifier = LogisticRegression(max_iter=1000).fit(train.reshape(-1, 64), y_train)

# The classifier as an ONNX graph of images: flatten, multiply, add, largest score.
weights = {"W": classifier.coef_.T, "b": classifier.intercept_}
graph = helper.make_graph(
    [
        helper.make_node("Flatten", ["images"], ["rows"]),
        helper.make_node("Gemm", ["rows", "W", "b"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0),
    ],
    "digits",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 8, 8])],
    [helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"])],
    [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
)
opset = helper.make_opsetid("", 17)
onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), "digits.onnx")
model = Model.register(ws, model_path="digits.onnx", model_name="onnx-digits")

env = Environment("onnx-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11",
    pip_packages=["azureml-defaults", f"onnxruntime=={version('onnxruntime')}"],
)

inference_config = md.build_inference_config(env, "score_onnx_images.py")
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), name="onnx-svc")
with md.closing_service(service):
    labels = md.call_service(service, test, format="json")
    print(f"accuracy of the deployed model: {(labels == y_test).mean():.4f}")
