"""Deploy an image classification model with Azure Machine Learning, on Azure or without it.

The public names are imported when they are first used, so that ``import mnist_deploy``
costs nothing and a plot needs no Azure. Type checkers read the same names in ``__init__.pyi``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "client": ("call_service", "post_images"),
    "data": (
        "MnistFiles",
        "download_mnist",
        "load_data",
        "load_test_data",
        "load_training_data",
    ),
    "deployment": ("closing_service", "delete_service", "deploy_to_aci"),
    "errors": ("MnistDeployError",),
    "plots": (
        "plot_comparison",
        "plot_confusion_matrix",
        "plot_misclassified",
        "plot_predictions",
    ),
    "preparation": ("prepare_workspace",),
    "tutorial": ("tutorial_file",),
    "registry": ("download_model", "fetch_environment", "fetch_model"),
    "service_config": ("build_aci_config", "build_inference_config"),
    "views": ("compare_results", "show_model", "show_service"),
    "workspace": ("connect_workspace",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
