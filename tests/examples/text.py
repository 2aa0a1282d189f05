"""A text classifier: a list of texts in, a list of text labels out."""

from importlib.metadata import version

import joblib
from azureml.core import Environment, Model
from azureml.core.conda_dependencies import CondaDependencies
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import mnist_deploy as md

ws = md.connect_workspace()

REVIEWS = {
    "good": ["an excellent film", "great actors and a great story", "I loved each minute",
             "wonderful music", "a pleasure to watch", "excellent story, wonderful actors"],
    "bad": ["a terrible film", "boring from beginning to end", "the worst story of the year",
            "I left after ten minutes", "terrible actors", "a boring story and awful music"],
}  # fmt: skip
texts = [text for texts in REVIEWS.values() for text in texts]
labels = [label for label, texts in REVIEWS.items() for _ in texts]
pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
joblib.dump(pipeline, "text.pkl")
model = Model.register(ws, model_path="text.pkl", model_name="text")

env = Environment("text-env")
env.python.conda_dependencies = CondaDependencies.create(
    python_version="3.11",
    pip_packages=["azureml-defaults", f"scikit-learn=={version('scikit-learn')}"],
)

inference_config = md.build_inference_config(env, "score_text.py")
service = md.deploy_to_aci(ws, model, inference_config, md.build_aci_config(), name="text-svc")
with md.closing_service(service):
    new = ["wonderful actors, an excellent film", "terrible and boring"]
    print(md.call_service(service, new, format="json"))
