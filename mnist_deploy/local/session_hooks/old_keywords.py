"""Accepts removed names and keywords of NumPy, scikit-learn and MLflow, with a warning.

Scripts with removed names run, and the log has one warning for each name. On Azure such a script
runs only if its environment pins old releases, and fails with current releases.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .import_hooks import Change

# Removed by NumPy 1.24: aliases of built-in types. Removed by NumPy 2.0: other aliases.
BUILTINS = {"float": float, "int": int, "bool": bool, "object": object, "str": str,
            "complex": complex}  # fmt: skip
SECOND_NAMES = {"float_": "float64", "complex_": "complex128", "Inf": "inf", "Infinity": "inf",
                "infty": "inf", "NaN": "nan", "product": "prod", "cumproduct": "cumprod",
                "alltrue": "all", "sometrue": "any", "in1d": "isin", "row_stack": "vstack",
                "round_": "round", "unicode_": "str_", "trapz": "trapezoid"}  # fmt: skip
RENAMED = {"base_estimator": "estimator", "affinity": "metric", "n_iter": "max_iter"}
WITHOUT_EFFECT = frozenset({"multi_class", "presort", "iid", "min_impurity_split"})
VALUES = {
    ("penalty", "none"): None,
    ("loss", "log"): "log_loss",
    ("loss", "deviance"): "log_loss",
    ("loss", "ls"): "squared_error",
    ("loss", "lad"): "absolute_error",
    ("loss", "squared_loss"): "squared_error",
    ("criterion", "mse"): "squared_error",
    ("criterion", "mae"): "absolute_error",
    ("max_features", "auto"): "sqrt",
}
_warned: set[str] = set()


def warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(f"{message} On Azure, pin a release that supports it.", FutureWarning, 3)


def is_called_by_library(depth: int) -> bool:
    """Whether the caller is an installed package: packages probe for attributes of NumPy."""
    name = sys._getframe(depth).f_code.co_filename
    return "site-packages" in name or "dist-packages" in name or name.startswith("<frozen")


def _bridge_numpy(numpy: ModuleType) -> None:
    original = getattr(numpy, "__getattr__", None)

    def find(name: str) -> Any:
        is_known = name in BUILTINS or SECOND_NAMES.get(name) in vars(numpy)
        if is_known and not is_called_by_library(2):
            replacement = name if name in BUILTINS else f"numpy.{SECOND_NAMES[name]}"
            warn_once(f"numpy.{name} was removed: {replacement} is used instead.")
            return BUILTINS[name] if name in BUILTINS else getattr(numpy, SECOND_NAMES[name])
        if original is None:
            raise AttributeError(f"module 'numpy' has no attribute {name!r}")
        return original(name)

    numpy.__getattr__ = find  # type: ignore[method-assign]


def _bridge_estimators(base: ModuleType) -> None:
    """Wrap the constructor of every estimator class defined after this call."""
    inherited = base.BaseEstimator.__init_subclass__.__func__

    def init_subclass(cls: type, **options: Any) -> None:
        inherited(cls, **options)
        if "__init__" in vars(cls):
            cls.__init__ = _accept_old_keywords(cls.__init__)  # type: ignore[misc]

    base.BaseEstimator.__init_subclass__ = classmethod(init_subclass)


def _accept_old_keywords(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        if options and type(self).__module__.startswith("sklearn."):
            options = bridge(type(self).__name__, inspect.signature(original), options)
        original(self, *arguments, **options)

    return init


def bridge(owner: str, signature: inspect.Signature, options: dict[str, Any]) -> dict[str, Any]:
    """Replace removed keywords and values by their successors; keep all others."""
    bridged: dict[str, Any] = {}
    for name, value in options.items():
        known = name in signature.parameters
        if not known and RENAMED.get(name) in signature.parameters:
            warn_once(f"{owner}({name}=…) was removed: {RENAMED[name]} is used instead.")
            name = RENAMED[name]
        elif not known and name in WITHOUT_EFFECT:
            warn_once(f"{owner}({name}={value!r}) was removed: the keyword is omitted.")
            continue
        if isinstance(value, str) and (name, value) in VALUES and _is_dropped(owner, name, value):
            today = VALUES[name, value]
            warn_once(f"{owner}({name}={value!r}) was removed: {today!r} is used instead.")
            value = today
        bridged[name] = value
    return bridged


def _is_dropped(owner: str, name: str, value: str) -> bool:
    """Whether a value was removed: all of `VALUES`, but ``loss="log"`` only for SGD."""
    return name != "loss" or value != "log" or owner.startswith("SGD")


def _bridge_liblinear(logistic: ModuleType) -> None:
    """Fit ``LogisticRegression(solver="liblinear")`` to more than two classes, one versus rest.

    The solver did so before scikit-learn 1.8, which rejects more than two classes.
    """
    cls = logistic.LogisticRegression
    original = cls.fit

    @functools.wraps(original)
    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        import numpy

        classes = numpy.unique(y)
        if self.solver != "liblinear" or len(classes) <= 2:
            return original(self, X, y, sample_weight)
        warn_once(
            "LogisticRegression(solver='liblinear') no longer accepts more than two classes: one "
            "binary model is fitted for each class."
        )
        return fit_one_versus_rest(self, X, numpy.asarray(y), classes, sample_weight, original)

    cls.fit = fit


def fit_one_versus_rest(
    model: Any, X: Any, y: Any, classes: Any, sample_weight: Any, fit_binary: Callable[..., Any]
) -> Any:
    """Fit one binary model for each class, and combine their coefficients in `model`."""
    import numpy
    from scipy.sparse import csr_matrix, issparse
    from sklearn.base import clone

    # liblinear needs a third of the time for sparse rows sorted by label.
    order = numpy.argsort(y, kind="stable")
    rows = (X if issparse(X) else csr_matrix(numpy.asarray(X, dtype=numpy.float64)))[order]
    weights = None if sample_weight is None else numpy.asarray(sample_weight)[order]
    fits = [fit_binary(clone(model), rows, y[order] == each, weights) for each in classes]
    model.classes_ = classes
    model.coef_ = numpy.vstack([each.coef_ for each in fits])
    model.intercept_ = numpy.concatenate([each.intercept_ for each in fits])
    model.n_iter_ = numpy.concatenate([each.n_iter_ for each in fits])
    model.n_features_in_ = rows.shape[1]
    return model


def _bridge_mlflow(flavor: ModuleType) -> None:
    """Save models with trees, which the default format since MLflow 3.10 rejects."""
    if hasattr(flavor, "SERIALIZATION_FORMAT_SKOPS"):
        flavor.save_model = _choose_format(flavor.save_model)  # type: ignore[attr-defined]
        flavor.log_model = _choose_format(flavor.log_model)  # type: ignore[attr-defined]


def _choose_format(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save(sk_model: Any, *arguments: Any, **options: Any) -> Any:
        is_free = not {"serialization_format", "skops_trusted_types"} & options.keys()
        if is_free and not arguments[3:] and has_untrusted_types(sk_model):
            warn_once(
                f"mlflow.sklearn.{original.__name__} saves a {type(sk_model).__name__} with "
                "cloudpickle, the default before MLflow 3.10: skops does not trust its types."
            )
            options["serialization_format"] = "cloudpickle"
        return original(sk_model, *arguments, **options)

    return save


def has_untrusted_types(model: Any) -> bool:
    """Whether skops would not load `model` without a list of trusted types."""
    try:
        import skops.io  # type: ignore[import-untyped]
    except ImportError:
        return False
    try:
        return bool(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    except Exception:  # skops cannot serialize the model, for instance a lambda in it
        return True


CHANGES: dict[str, Change] = {
    "mlflow.sklearn": _bridge_mlflow,
    "numpy": _bridge_numpy,
    "sklearn.base": _bridge_estimators,
    "sklearn.linear_model._logistic": _bridge_liblinear,
}
