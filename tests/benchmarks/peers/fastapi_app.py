"""A FastAPI service as most tutorials of FastAPI would write it."""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["BENCHMARK_MODEL"])


class Images(BaseModel):
    data: list[list[float]]


@app.post("/score")
def score(images: Images) -> list[int]:
    return model.predict(np.array(images.data)).tolist()
