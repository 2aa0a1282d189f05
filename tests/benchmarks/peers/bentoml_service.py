"""A BentoML service, as its documentation of scikit-learn models has it."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1, traffic={"timeout": 300})
class Digits:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCHMARK_MODEL"])

    @bentoml.api
    def score(self, images: np.ndarray) -> np.ndarray:
        return self.model.predict(images)
