"""Plots of the results of a classifier: each takes arrays and returns axes or a figure.

In a notebook, end the line of a call that returns a figure with a semicolon; otherwise the
figure is displayed twice.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike


def plot_confusion_matrix(
    conf_mx: ArrayLike, *, ax: Axes | None = None, path: str | os.PathLike[str] | None = None
) -> Axes:
    """Plot a confusion matrix: the brighter a cell, the more frequent the error.

    Wraps the tutorial's step "examine the confusion matrix". Each row is divided by its sum,
    and the diagonal is left dark, so that the errors are visible.

    Parameters
    ----------
    conf_mx : array-like, shape (classes, classes)
        Counts; rows are true classes, columns predicted classes. A class without samples is dark.
    ax : Axes, optional
        The axes to draw in; by default those of a new figure.
    path : path-like, optional
        The file to save the figure to, such as ``conf.png``; its folder is created if needed.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        The matrix is not square, is empty, or has negative values or NaN.
    """
    errors = _error_rates(_counts(conf_mx))
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    _add_bar(ax, _draw_matrix(ax, errors, cmap="bone", vmin=0, vmax=errors.max() or 1))
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        ax.figure.canvas.figure.savefig(path, bbox_inches="tight")  # all, not a subfigure only
    return ax


def plot_comparison(
    conf_mx_local: ArrayLike,
    conf_mx_deployed: ArrayLike,
    *,
    names: tuple[str, str] = ("local", "deployed"),
) -> Figure:
    """Plot the confusion matrices of the local and the deployed model, and their difference.

    Parameters
    ----------
    conf_mx_local, conf_mx_deployed : array-like, shape (classes, classes)
        Counts, as for `plot_confusion_matrix`; both plots have the same scale.
    names : (str, str)
        The titles, for instance ``("blue", "green")``.

    Returns
    -------
    Figure
        The third plot has the difference of the counts, second minus first, with the diagonal.

    Raises
    ------
    ValueError
        A matrix is not valid for `plot_confusion_matrix`, or the shapes differ.
    """
    local, deployed = _counts(conf_mx_local), _counts(conf_mx_deployed)
    if local.shape != deployed.shape:
        raise ValueError(
            f"the matrices have shapes {local.shape} and {deployed.shape}; expected equal shapes."
        )
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    peak = max(_error_rates(local).max(), _error_rates(deployed).max()) or 1
    for ax, name, counts in zip(axes, names, (local, deployed), strict=False):
        image = _draw_matrix(ax, _error_rates(counts), cmap="bone", vmin=0, vmax=peak)
        ax.set_title(f"{name}: accuracy {np.trace(counts) / (counts.sum() or 1):.4f}")
    _add_bar(axes[1], image)
    ax, difference = axes[2], deployed - local
    peak = np.abs(difference).max() or 1
    _draw_matrix(ax, difference, cmap="PuOr", vmin=-peak, vmax=peak)
    for row, column in np.argwhere(difference):
        value = difference[row, column]
        color = "white" if abs(value) > peak / 2 else "black"
        ax.text(column, row, f"{value:+g}", ha="center", va="center", color=color, fontsize=8)
    ax.set_title(f"{names[1]} minus {names[0]}" if difference.any() else "no difference")
    return figure


def plot_predictions(
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    n: int = 30,
    rng: int | np.random.Generator | None = None,
) -> Figure:
    """Plot random samples with their predictions; wrong ones are red and inverted.

    Wraps the tutorial's step "show predictions".

    Parameters
    ----------
    images : array-like, shape (samples, side * side) or (samples, side, side)
        Intensities, in [0, 1] or 0 to 255.
    labels, predictions : array-like, shape (samples,)
        True and predicted classes.
    n : int
        The number of samples; if there are no more, all in their order. A row has thirty.
    rng : int or Generator, optional
        A seed or a generator; by default each call chooses other samples.

    Returns
    -------
    Figure
        One axes for each sample, titled with its prediction.

    Raises
    ------
    ValueError
        The arrays are empty or differ in length, the images are not square, or n is less than 1.
    """
    pixels, true, predicted = _samples(images, labels, predictions, n)
    chosen = np.arange(len(pixels))
    if n < len(pixels):
        chosen = np.random.default_rng(rng).choice(chosen, n, replace=False)
    figure, cells = _grid(len(chosen), columns=30, width=2 / 3, height=1)
    for ax, i in zip(cells, chosen, strict=True):
        wrong = bool(true[i] != predicted[i])
        _draw_image(ax, pixels[i], inverted=wrong)
        ax.set_title(str(predicted[i]), fontsize=18, color="red" if wrong else "black")
    return figure


def plot_misclassified(
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    confidence: ArrayLike,
    *,
    n: int = 30,
) -> Figure:
    """Plot misclassified samples, ordered by the confidence of the model.

    Parameters
    ----------
    images, labels, predictions : array-like
        As for `plot_predictions`.
    confidence : array-like, shape (samples,)
        The confidence of each prediction, in [0, 1], for instance
        ``model.predict_proba(X).max(axis=1)``.
    n : int
        The maximum number of samples. A row has ten.

    Returns
    -------
    Figure
        Images with true class, predicted class and confidence; a text if none is wrong.

    Raises
    ------
    ValueError
        As for `plot_predictions`; or confidence has another length or values outside of [0, 1].
    """
    pixels, true, predicted = _samples(images, labels, predictions, n)
    certainty = np.asarray(confidence, dtype=float).reshape(-1)
    if len(certainty) != len(pixels) or not ((certainty >= 0) & (certainty <= 1)).all():
        raise ValueError(
            f"confidence has {len(certainty)} values; expected {len(pixels)} in [0, 1], one for "
            "each image."
        )
    wrong = np.flatnonzero(true != predicted)
    if len(wrong) == 0:
        figure = plt.figure(figsize=(8, 1))
        figure.text(0.5, 0.5, f"None of {len(pixels):,} samples is wrong.", ha="center")
        return figure
    chosen = wrong[np.argsort(-certainty[wrong], kind="stable")][:n]
    figure, cells = _grid(len(chosen), columns=10, width=1.2, height=1.5)
    for ax, i in zip(cells, chosen, strict=True):
        _draw_image(ax, pixels[i])
        percent = math.floor(1000 * certainty[i]) / 10  # 99.97 is not 100
        ax.set_title(f"{true[i]} taken for {predicted[i]}\n{percent}% sure", fontsize=9)
    figure.set_figwidth(max(figure.get_figwidth(), 5))  # inches, so that the title fits
    figure.suptitle(f"{len(chosen):,} of {len(wrong):,} wrong among {len(pixels):,} samples")
    return figure


def _counts(conf_mx: ArrayLike) -> np.ndarray:
    counts = np.asarray(conf_mx, dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"a confusion matrix is square; this one has the shape {counts.shape}.")
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("a confusion matrix holds counts; this one has negative values or NaN.")
    return counts


def _error_rates(counts: np.ndarray) -> np.ndarray:
    """Divide each row by its sum, unless that is 0, and blank the diagonal."""
    sums = counts.sum(axis=1, keepdims=True)
    rates = counts / np.where(sums > 0, sums, 1)
    np.fill_diagonal(rates, 0)
    return rates


def _draw_matrix(ax: Axes, matrix: np.ndarray, **colors: Any) -> AxesImage:
    image = ax.imshow(matrix, **colors)
    ax.set(xlabel="predicted", ylabel="true")
    for axis in (ax.xaxis, ax.yaxis):
        if len(matrix) <= 10:
            axis.set_ticks(range(len(matrix)))
        else:
            axis.set_major_locator(MaxNLocator(10, integer=True))
    return image


def _add_bar(ax: Axes, image: AxesImage) -> None:
    percent = FuncFormatter(lambda rate, _: f"{100 * rate:.3g}%")
    ax.figure.colorbar(image, ax=ax, format=percent, label="share of the true class")


def _samples(
    images: ArrayLike, labels: ArrayLike, predictions: ArrayLike, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the input of a plot of samples; return square images and two label arrays."""
    pixels, true = np.asarray(images), np.asarray(labels).reshape(-1)
    predicted = np.asarray(predictions).reshape(-1)
    if not len(pixels) == len(true) == len(predicted) > 0 or n < 1:
        raise ValueError(
            f"{len(pixels)} images, {len(true)} labels, {len(predicted)} predictions and n={n}: "
            "expected the same number of each, and at least one."
        )
    side = math.isqrt(pixels[0].size)
    if pixels.shape[1:] not in ((side * side,), (side, side)):
        raise ValueError(f"images have the shape {pixels.shape}, expected (n, 784) or (n, 28, 28).")
    return pixels.reshape(-1, side, side), true, predicted


def _grid(n: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure of n axes; width and height of each in inches."""
    columns, rows = min(n, columns), math.ceil(n / columns)
    figure = plt.figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _draw_image(ax: Axes, pixels: np.ndarray, *, inverted: bool = False) -> None:
    peak = max(pixels.max(), 1e-9)  # so that an empty image stays empty
    ax.imshow(pixels, cmap="gray" if inverted else "gray_r", vmin=0, vmax=peak)
    ax.axis("off")
