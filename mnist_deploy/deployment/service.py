"""A service, wherever it runs: deploy and wait, say why it failed, delete."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests

from ..errors import DeploymentError, DeploymentTimeout
from ..sdk import Deadline, check_kind, reason
from .preflight import check_deployment, check_kinds

if TYPE_CHECKING:
    from azureml.core import Model, Webservice, Workspace
    from azureml.core.compute import AksCompute
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice.webservice import WebserviceDeploymentConfiguration

LOG_LINES = 30
_LOG_LIMIT = 5.0  # seconds
_DELETE_LIMIT = 300.0  # seconds
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*$", re.M)
_BUILD_LOG = re.compile(r"More information can be found here: (https?://\S+)")


def deploy_service(
    kind: type[Webservice],
    ws: Workspace,
    name: str,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    deployment_config: WebserviceDeploymentConfiguration,
    cluster: AksCompute | None = None,
    *,
    overwrite: bool,
    timeout: float,
) -> Any:
    """Deploy models and wait, with visible progress, until the service is healthy.

    The parameters, and what is raised, are those of `deploy_to_aci` and `deploy_to_aks`; kind is
    the SDK's class of what they return.
    """
    from azureml.core.model import Model

    models = check_kinds(ws, model, inference_config)
    check_deployment(name, models, inference_config)
    # That the first SDK is retired is said in the notebook, once. Ours are the calls of `Deadline`,
    # and those that a mock hands on.
    ours = rf"{re.escape(Deadline.__module__)}|unittest\.mock"
    warnings.filterwarnings("ignore", "azureml", FutureWarning, ours)
    deadline, service = Deadline(timeout), None

    def read_state(_: Exception) -> str | None:
        if service is None:
            return None
        with suppress(Exception):  # whatever it is, it must not hide the failure itself
            Deadline(_LOG_LIMIT).call(service.update_deployment_state)
        return service.state

    with deploying(
        name, f"The service {name!r}", deadline, read_state, lambda e: _read_log(service, e),
        left=": overwrite=True replaces it", again="deploy again with overwrite=True",
    ):  # fmt: skip
        left_over = _find(ws, name, deadline)
        if left_over is not None and not overwrite:
            raise DeploymentError(
                f"There is a service {name!r} already ({left_over.state}). Pass overwrite=True to "
                "replace it, choose another name, or delete it with delete_service.",
                state=left_over.state,
            )
        if left_over is not None:
            print(f"Replacing the service {name!r} ({left_over.state}), left from an earlier run.")
        in_place = isinstance(left_over, kind) and left_over.state == "Healthy"
        if left_over is not None and not in_place:  # Azure updates no service that failed
            _delete(left_over, deadline)
        service = deadline.call(
            Model.deploy, ws, name, models, inference_config, deployment_config, cluster, in_place
        )
        deadline.call(service.wait_for_deployment, timeout_sec=deadline.remaining() + 1)
        if service.state != "Healthy":
            raise RuntimeError(f"it became {service.state} after it had started.")
    return service


def _find(ws: Workspace, name: str, deadline: Deadline) -> Webservice | None:
    from azureml.core.webservice import Webservice

    services = deadline.call(Webservice.list, ws)
    return next((service for service in services if service.name == name), None)


@contextmanager
def deploying(
    name: str,
    what: str,
    deadline: Deadline,
    read_state: Callable[[Exception], str | None],
    read_log: Callable[[Exception], str],
    *,
    left: str,
    again: str,
) -> Iterator[None]:
    """Show that it goes on; of a deployment that failed raise all that is known, and advice.

    Without a state nothing was deployed. On Ctrl-C a line says what may be left.
    """
    try:
        with deadline.show_progress(f"deploying {name}"):
            yield
    except KeyboardInterrupt:
        print(f"Interrupted. {what} may be left{left}.")
        raise
    except DeploymentError:
        raise
    except Exception as error:
        # The SDK's own clock may strike first: it is out of time all the same.
        kind, outcome = DeploymentError, "could not be deployed"
        if not deadline.remaining():
            kind, outcome = DeploymentTimeout, f"was not healthy within {deadline.seconds:g} s"
        state, logs = read_state(error), ""
        if state is None:
            raise kind(f"{what} {outcome}: {reason(error)}") from error
        told = f"{what} {outcome}; its state is {state}. {reason(error)}"
        try:
            logs = "\n".join(read_log(error).splitlines()[-LOG_LINES:])
        except Exception as unreadable:
            told += f" (The log cannot be read: {reason(unreadable)})"
        if logs:
            told += f"\nThe last lines of its log:\n\n{logs}\n"
        message = f"{told}\n{_advice(kind, logs, again)}"
        raise kind(message, state=state, logs=logs) from error


def _read_log(service: Webservice, error: Exception) -> str:
    """The tail of the container's log, or of the build's where there is no image yet."""
    if build_log := _BUILD_LOG.search(str(error)):
        answer = requests.get(build_log[1], timeout=_LOG_LIMIT)
        answer.raise_for_status()
        return answer.text
    return Deadline(_LOG_LIMIT).call(service.get_logs, num_lines=LOG_LINES) or ""


def _advice(kind: type[DeploymentError], logs: str, again: str) -> str:
    """What to try next, in view of the first error that a log tells."""
    if found := _ERROR.search(logs):
        mend = "The environment must install it" if "ModuleNotFound" in found[0] else "Mend that"
        return f"The first error: {found[0]}\n{mend}, then {again}."
    if kind is DeploymentTimeout:
        may_be_slow = "No error is told there: init() may only need more time."
        return f"{may_be_slow} Pass a longer timeout, and {again}."
    return f"Mend what is named above, then {again}."


def delete_service(service: Webservice) -> None:
    """Delete a service and wait until it is gone; nothing happens if it is gone already.

    Wraps the tutorial's ``service.delete()``, which does not tell whether Azure managed to.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice

    Raises
    ------
    DeploymentError
        It could not be deleted, or was not within 300 seconds.
    """
    check_kind("service", service, "azureml.core.Webservice", "deploy_to_aci(...)")
    try:
        _delete(service, Deadline(_DELETE_LIMIT))
    except Exception as error:
        raise DeploymentError(
            f"The service {service.name!r} could not be deleted: {reason(error)} On Azure it may "
            "go on costing money: try again, or delete it in the portal.",
            state=service.state,
        ) from error


def _delete(service: Webservice, deadline: Deadline) -> None:
    operation = service._operation_endpoint
    deadline.call(service.delete)
    while _find(service.workspace, service.name, deadline) is not None:
        if service._operation_endpoint != operation:  # whose outcome the SDK has thrown away
            state, error, _ = deadline.call(service._get_operation_state)
            if state not in ("Succeeded", "Running", "NotStarted"):
                raise RuntimeError(json.dumps(error) if error else f"the deletion became {state}")
        deadline.back_off()


@contextmanager
def closing_service(service: Webservice) -> Iterator[Any]:
    """``with closing_service(deploy_to_aci(...)) as service:`` deletes it at the end of the block.

    Also after an exception; a plain `deploy_to_aci` leaves the service, as in the tutorial.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice

    Returns
    -------
    context manager
        That gives the service.
    """
    try:
        yield service
    finally:
        delete_service(service)
