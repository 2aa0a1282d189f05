"""Deploy a service of SDK v1, on ACI or AKS; delete it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from ..errors import DeploymentError
from ..sdk import Deadline, check_kind, find_kernel, reason
from .failure import LOG_LINES, Attempt, report_deployment
from .preflight import check_deployment, check_kinds

if TYPE_CHECKING:
    from azureml.core import Model, Webservice, Workspace
    from azureml.core.compute import AksCompute
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice.webservice import WebserviceDeploymentConfiguration

LOG_TIMEOUT = 5.0  # seconds
DELETE_TIMEOUT = 300.0  # seconds
_BUILD_LOG = re.compile(r"More information can be found here: (https?://\S+)")
_DELETION_PENDING = ("Succeeded", "Running", "NotStarted")


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

    Parameters and exceptions are those of `deploy_to_aci` and `deploy_to_aks`; `kind` is the
    SDK's class of the service.
    """
    models = check_kinds(ws, model, inference_config)
    check_deployment(name, models, inference_config)
    deadline = Deadline(timeout)
    deployed: list[Webservice] = []  # empty until the workspace has accepted the deployment
    with report_deployment(_build_attempt(name, deployed), deadline):
        in_place = _prepare_overwrite(kind, ws, name, deadline, overwrite)
        with warnings.catch_warnings():  # only during this call: the SDK's advice to use SDK v2
            warnings.filterwarnings("ignore", r"\s*azureml\.core\.model", FutureWarning)
            arguments = (ws, name, models, inference_config, deployment_config, cluster, in_place)
            deployed.append(_call_deploy(deadline, *arguments))
        (service,) = deployed
        deadline.call(service.wait_for_deployment, timeout_sec=deadline.remaining() + 1)
        if service.state != "Healthy":
            raise RuntimeError(f"The state became {service.state} after the start.")
    _print_lifetime(service)
    return service


def _call_deploy(deadline: Deadline, *arguments: Any) -> Webservice:
    from azureml.core.model import Model

    return deadline.call(Model.deploy, *arguments)


def _build_attempt(name: str, deployed: list[Webservice]) -> Attempt:
    def read_state(_: Exception) -> str | None:
        if not deployed:
            return None
        with suppress(Exception):  # must not hide the failure of the deployment
            Deadline(LOG_TIMEOUT).call(deployed[0].update_deployment_state)
        return deployed[0].state

    return Attempt(
        name=name,
        subject=f"The service {name!r}",
        interrupted=f"The service {name!r} may exist: overwrite=True replaces it.",
        retry="Then deploy again with overwrite=True.",
        read_state=read_state,
        read_log=lambda error: _read_log(deployed[0], error),
    )


def _prepare_overwrite(
    kind: type[Webservice], ws: Workspace, name: str, deadline: Deadline, overwrite: bool
) -> bool:
    """Return whether a service of this name can be updated; delete one that cannot."""
    existing = _find(ws, name, deadline)
    if existing is None:
        return False
    if not overwrite:
        raise DeploymentError(
            f"A service {name!r} exists already ({existing.state}). Pass overwrite=True to replace "
            "it, choose another name, or delete it with delete_service.",
            state=existing.state,
        )
    print(f"Replacing the service {name!r} ({existing.state}) of an earlier run.")
    if isinstance(existing, kind) and existing.state == "Healthy":
        return True
    _delete(existing, deadline)  # Azure does not update a service that failed
    return False


def _find(ws: Workspace, name: str, deadline: Deadline) -> Webservice | None:
    from azureml.core.webservice import Webservice

    services = deadline.call(Webservice.list, ws)
    return next((service for service in services if service.name == name), None)


def _read_log(service: Webservice, error: Exception) -> str:
    """The end of the container's log, or the log of the image build if that failed."""
    if build_log := _BUILD_LOG.search(str(error)):
        response = requests.get(build_log[1], timeout=LOG_TIMEOUT)
        response.raise_for_status()
        return response.text
    return Deadline(LOG_TIMEOUT).call(service.get_logs, num_lines=LOG_LINES) or ""


def _print_lifetime(service: Webservice) -> None:
    """Print, in a script, how long a service of the local workspace runs."""
    is_local = urlsplit(service.scoring_uri or "").hostname == "127.0.0.1"
    if is_local and find_kernel() is None:
        print(
            "The service stops when the last process that uses the local workspace ends; "
            "'python -m mnist_deploy.local serve' keeps it running."
        )


def delete_service(service: Webservice) -> None:
    """Delete a service, and wait until the workspace no longer lists it.

    Wraps the tutorial's ``service.delete()``, which does not report whether Azure deleted the
    service. A service that does not exist is not an error.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice

    Raises
    ------
    DeploymentError
        The service could not be deleted within 300 seconds.
    """
    check_kind("service", service, "azureml.core.Webservice", "deploy_to_aci(...)")
    try:
        _delete(service, Deadline(DELETE_TIMEOUT))
    except Exception as error:
        raise DeploymentError(
            f"The service {service.name!r} could not be deleted: {reason(error)} On Azure it may "
            "continue to cost money: try again, or delete it in the portal.",
            state=service.state,
        ) from error


def _delete(service: Webservice, deadline: Deadline) -> None:
    operation = service._operation_endpoint
    deadline.call(service.delete)
    while _find(service.workspace, service.name, deadline) is not None:
        if service._operation_endpoint != operation:  # the SDK discards the operation's outcome
            state, error, _ = deadline.call(service._get_operation_state)
            if state not in _DELETION_PENDING:
                message = json.dumps(error) if error else f"The deletion ended as {state}."
                raise RuntimeError(message)
        deadline.back_off()


@contextmanager
def closing_service(service: Webservice) -> Iterator[Any]:
    """Delete a service at the end of a ``with`` block, also after an exception.

    ``with closing_service(deploy_to_aci(...)) as service:`` A plain `deploy_to_aci` keeps the
    service, as in the tutorial.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice or AksWebservice

    Returns
    -------
    context manager
        ``with`` assigns the service.
    """
    try:
        yield service
    finally:
        delete_service(service)
