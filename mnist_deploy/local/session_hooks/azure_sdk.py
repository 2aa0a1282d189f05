"""Changes of azureml-core and its data engine.

With them, both send no telemetry, flush the metrics of a run before its process ends, and import
substitutes for modules that cannot be imported.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import ModuleType
from typing import Any

from .import_hooks import Change


def _turn_off_collection(telemetry: ModuleType) -> None:
    telemetry.get_diagnostics_collection_info = lambda *_, **__: (False, "NOTSET")  # type: ignore[attr-defined]


def _remove_log_handlers(loggers: ModuleType) -> None:
    """Remove the log handlers that were added before the hooks: they send records to Microsoft."""
    loggers.telemetry_enabled = False  # type: ignore[attr-defined]
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(f"{loggers.__name__}."):
            logging.getLogger(name).handlers.clear()


def _turn_off_engine_telemetry(engine: ModuleType) -> None:
    """Start the data engine with verbosity ``Off`` and without its client for telemetry.

    ``init_environment`` takes them as its third and sixth argument.
    """
    original = engine.init_environment

    def init_environment(*arguments: Any, **options: Any) -> Any:
        changed = list(arguments)
        for position, name, value in ENGINE_OPTIONS:
            if len(changed) > position:
                changed[position] = value
            elif name in options:
                options[name] = value
        return original(*changed, **options)

    engine.init_environment = init_environment  # type: ignore[attr-defined]


def _resolve_local_workspace_first(resolver: ModuleType) -> None:
    """Make the data engine log in with the local workspace to which this process is connected.

    With both SDKs installed, the engine tries `DefaultAzureCredential` first, which sends requests
    to addresses outside of this machine.
    """
    original = resolver._resolve_auth_for_workspace_access

    def resolve(
        subscription: str, group: str, name: str, auth_type: str, credentials: dict[str, Any]
    ) -> Any:
        workspace = resolver.WorkspaceContextCache.get(subscription, group, name)
        if workspace is not None and str(workspace.discovery_url).startswith(LOOPBACK):
            return resolver._resolve_auth_from_workspace(
                subscription, group, name, auth_type, credentials
            )
        return original(subscription, group, name, auth_type, credentials)

    resolver._resolve_auth_for_workspace_access = resolve  # type: ignore[attr-defined]


def _flush_at_exit(run_module: ModuleType) -> None:
    """Send the metrics of a run before the interpreter stops its threads.

    `atexit` is too late: the SDK sends metrics in threads, which are stopped before.
    """

    def flush() -> None:
        for run in list(run_module._SubmittedRun._SubmittedRun__instances.values()):
            run.flush()

    threading._register_atexit(flush)  # type: ignore[attr-defined]


ENGINE_OPTIONS = ((2, "verbosity", "Off"), (3, "hbi_mode", True))
LOOPBACK = "https://127.0.0.1:"
STAY_LOCAL: dict[str, Change] = {
    "azureml.dataprep.api._aml_auth_resolver": _resolve_local_workspace_first,
    "azureml.telemetry": _turn_off_collection,
    "azureml.data._loggerfactory": _remove_log_handlers,
    "azureml.dataprep.api._loggerfactory": _remove_log_handlers,
    "azureml.dataprep.rslex": _turn_off_engine_telemetry,
}
FLUSH_METRICS: dict[str, Change] = {"azureml.core.run": _flush_at_exit}
# azureml-widgets 1.62 cannot be imported with current releases of IPython and azure-storage-blob.
SUBSTITUTES = {"azureml.widgets": f"{__package__}.widgets"}
if sys.version_info >= (3, 13):  # without imghdr, which azureml-core imports
    SUBSTITUTES["imghdr"] = f"{__package__}.image_kinds"
MISSING = {
    "azureml.train": (
        "No module named 'azureml.train': it is part of the package azureml-train-core, which "
        "mnist_deploy does not need. Install it with: pip install azureml-train-core"
    ),
    "azureml.pipeline": (
        "No module named 'azureml.pipeline': it is part of the package azureml-pipeline. The local "
        "workspace does not execute pipelines."
    ),
}
