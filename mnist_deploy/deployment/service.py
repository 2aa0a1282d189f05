"""A service, wherever it runs: deploy and wait, say why it failed, delete."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from ..errors import DeploymentError, DeploymentTimeout
from ..sdk import Deadline, DeadlinePassed, reason
from .preflight import check_deployment

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice, Webservice
    from azureml.core.webservice.aci import AciServiceDeploymentConfiguration

_LOG_LINES = 30
_LOG_LIMIT = 5.0  # seconds
_DELETE_LIMIT = 300.0  # seconds
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*$", re.M)


def deploy_service(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    deployment_config: AciServiceDeploymentConfiguration,
    name: str,
    *,
    overwrite: bool,
    timeout: float,
) -> AciWebservice:
    """Deploy models and wait, with visible progress, until the service is healthy.

    The parameters, and what is raised, are those of `deploy_to_aci`.
    """
    from azureml.core.model import Model

    models = [model] if isinstance(model, Model) else list(model)
    if not all(isinstance(each, Model) for each in models):
        raise TypeError(f"model is {model!r}; expected a Model, as fetch_model(ws) returns it.")
    check_deployment(name, models, inference_config)
    deadline, service = Deadline(timeout), None
    try:
        left_over = _find_left_over(ws, name, overwrite, deadline)
        with tqdm(desc=f"deploying {name}", bar_format="{desc} {elapsed}", leave=False) as progress:
            deadline.tick = progress.refresh
            in_place = left_over is not None and left_over.state == "Healthy"
            if left_over is not None and not in_place:  # Azure updates no service that failed
                deadline.call(left_over.delete)
            service = deadline.call(
                _send, ws, name, models, inference_config, deployment_config, overwrite=in_place
            )
            deadline.call(service.wait_for_deployment, timeout_sec=deadline.left() + 1)
            if service.state != "Healthy":
                raise RuntimeError(f"it became {service.state} after it had started.")
    except KeyboardInterrupt:
        print(f"Interrupted. The service {name!r} may be left: overwrite=True replaces it.")
        raise
    except DeploymentError:
        raise
    except DeadlinePassed as error:
        what = f"was not healthy within {timeout:g} s"
        raise _failure(DeploymentTimeout, name, service, what, error) from None
    except Exception as error:
        # The SDK's own clock may strike first: it is out of time all the same.
        kind = DeploymentError if deadline.left() else DeploymentTimeout
        raise _failure(kind, name, service, "could not be deployed", error) from error
    return service


def _find_left_over(
    ws: Workspace, name: str, overwrite: bool, deadline: Deadline
) -> Webservice | None:
    from azureml.core.webservice import Webservice

    services = deadline.call(Webservice.list, ws)
    left_over = next((service for service in services if service.name == name), None)
    if left_over is not None and not overwrite:
        raise DeploymentError(
            f"There is a service {name!r} already ({left_over.state}). Pass overwrite=True to "
            "replace it, choose another name, or delete it with delete_service.",
            state=left_over.state,
        )
    if left_over is not None:
        print(f"Replacing the service {name!r} ({left_over.state}), left from an earlier run.")
    return left_over


def _send(*deployment: object, overwrite: bool) -> AciWebservice:
    from azureml.core.model import Model

    with warnings.catch_warnings():
        # That the first SDK is retired is said in the notebook, once.
        warnings.filterwarnings("ignore", category=FutureWarning)
        return Model.deploy(*deployment, overwrite=overwrite)


def _failure(
    kind: type[DeploymentError],
    name: str,
    service: AciWebservice | None,
    what: str,
    error: Exception,
) -> DeploymentError:
    """Put together all that is known about a deployment that failed."""
    if service is None:
        return kind(f"The service {name!r} {what}: {reason(error)}")
    with suppress(Exception):  # whatever it is, it must not hide the failure itself
        Deadline(_LOG_LIMIT).call(service.update_deployment_state)
    logs = _log_tail(service, _LOG_LINES)
    shown = f"The last lines of its container's log:\n\n{logs}\n" if logs else reason(error)
    return kind(
        f"The service {name!r} {what}; its state is {service.state}. {shown}\n{_advice(logs)}",
        state=service.state,
        logs=logs,
    )


def _advice(logs: str) -> str:
    """What to try next, in view of the first error that a container's log tells."""
    found = _ERROR.search(logs)
    if found is None:
        return (
            "No error is told there: init() may only need more time. Pass a longer timeout, and "
            "overwrite=True, which replaces the service."
        )
    mend = "The environment must install it" if "ModuleNotFound" in found[0] else "Mend that"
    return f"The first error: {found[0]}\n{mend}, then deploy again with overwrite=True."


def _log_tail(service: AciWebservice, lines: int) -> str:
    try:
        log = Deadline(_LOG_LIMIT).call(service.get_logs, num_lines=lines)
    except Exception as error:
        return f"(The log cannot be read: {reason(error)})"
    return "\n".join((log or "").splitlines()[-lines:])


def delete_service(service: AciWebservice) -> None:
    """Delete a service; nothing happens if it is gone already.

    Wraps the tutorial's ``service.delete()``.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice

    Raises
    ------
    DeploymentError
        It could not be deleted, or was not within 300 seconds.
    """
    try:
        Deadline(_DELETE_LIMIT).call(service.delete)
    except Exception as error:
        raise DeploymentError(
            f"The service {service.name!r} could not be deleted: {reason(error)} On Azure it may "
            "go on costing money: try again, or delete it in the portal.",
            state=service.state,
        ) from error


@contextmanager
def closing_service(service: AciWebservice) -> Iterator[AciWebservice]:
    """``with closing_service(deploy_to_aci(...)) as service:`` deletes it at the end of the block.

    Also after an exception; a plain `deploy_to_aci` leaves the service, as in the tutorial.

    Parameters
    ----------
    service : azureml.core.webservice.AciWebservice

    Returns
    -------
    context manager
        That gives the service.
    """
    try:
        yield service
    finally:
        delete_service(service)
