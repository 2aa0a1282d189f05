"""Deploy a registered model as a web service on Azure Container Instances, and delete it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .errors import DeploymentError, DeploymentTimeout
from .preflight import check_deployment
from .tutorial import tutorial_file

if TYPE_CHECKING:
    from azureml.core import Environment, Model, Workspace
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice
    from azureml.core.webservice.aci import AciServiceDeploymentConfiguration

_LOG_LINES = 30


def build_inference_config(
    environment: Environment, entry_script: str | os.PathLike[str] = "score.py"
) -> InferenceConfig:
    """What runs in the service: a scoring script in an environment.

    Wraps the tutorial's ``InferenceConfig(entry_script="score.py", environment=myenv)``.

    Parameters
    ----------
    environment : azureml.core.Environment
    entry_script : path-like
        Looked for in the working directory, then among the tutorial's own files.

    Raises
    ------
    DeploymentError
        There is no such script.
    """
    from azureml.core.model import InferenceConfig

    script = Path(entry_script)
    if not script.is_file():
        try:
            script = tutorial_file(str(entry_script))
        except FileNotFoundError:
            raise DeploymentError(
                f"There is no scoring script {entry_script} in this folder. Expected a Python "
                "file with init() and run()."
            ) from None
    return InferenceConfig(entry_script=str(script), environment=environment)


def build_aci_config(
    cpu_cores: float = 1,
    memory_gb: float = 1,
    tags: dict[str, str] | None = None,
    description: str = "Predict MNIST with sklearn",
    **aci: Any,
) -> AciServiceDeploymentConfiguration:
    """How large the container is, and how the service is described.

    Wraps the tutorial's ``AciWebservice.deploy_configuration``.

    Parameters
    ----------
    cpu_cores, memory_gb : float
        More than 0; memory in GB.
    tags : dict of str to str, optional
        By default data=MNIST and method=sklearn.
    description : str
    **aci
        Whatever else `AciWebservice.deploy_configuration` takes; ``auth_enabled=True`` makes
        the service ask for a key.

    Raises
    ------
    DeploymentError
        A value that no container can have.
    """
    from azureml.core.webservice import AciWebservice
    from azureml.exceptions import WebserviceException

    if tags is None:
        tags = {"data": "MNIST", "method": "sklearn"}
    try:
        return AciWebservice.deploy_configuration(
            cpu_cores=cpu_cores, memory_gb=memory_gb, tags=tags, description=description, **aci
        )
    except WebserviceException as error:
        raise DeploymentError(f"The ACI configuration is not valid: {error.message}") from error


def deploy_to_aci(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    aci_config: AciServiceDeploymentConfiguration,
    name: str = "sklearn-mnist-svc3",
    *,
    overwrite: bool = False,
    timeout: float = 600,
) -> AciWebservice:
    """Deploy a model as a web service and wait, with visible progress, until it is healthy.

    Wraps the tutorial's ``Model.deploy`` and ``service.wait_for_deployment``.

    Parameters
    ----------
    ws : azureml.core.Workspace
    model : azureml.core.Model or sequence of them
    inference_config, aci_config
        See `build_inference_config`, `build_aci_config`.
    name : str
        Lower-case letters, digits and '-'; at most 32 characters.
    overwrite : bool
        Replace a service of that name, which an earlier run may have left over.
    timeout : float
        In seconds.

    Returns
    -------
    azureml.core.webservice.AciWebservice
        Healthy.

    Raises
    ------
    DeploymentError
        Before anything is sent: the script does not compile or lacks init() or run(), the file
        that it loads is not in the model, model and environment name different versions of
        scikit-learn, or a service of that name is there. After it: the service failed; with its
        state and the container's last log lines.
    DeploymentTimeout
        It was not healthy in time; likewise.
    """
    from azureml.core.model import Model
    from azureml.exceptions import WebserviceException

    models = [model] if isinstance(model, Model) else list(model)
    check_deployment(models, inference_config)
    give_up_at = time.monotonic() + timeout
    replaced = _make_room(ws, name, overwrite)
    try:
        with warnings.catch_warnings():
            # That SDK v1 is retired is said in the notebook, once.
            warnings.filterwarnings("ignore", category=FutureWarning)
            service = Model.deploy(
                ws, name, models, inference_config, aci_config, overwrite=replaced
            )
    except WebserviceException as error:
        raise DeploymentError(f"{name} was not deployed: {error.message}") from error
    _wait(service, give_up_at, timeout)
    for line in _log_tail(service, 5000).splitlines():
        if " environment: " in line:
            print(line.partition(" environment: ")[2])
    return service


def _make_room(ws: Workspace, name: str, overwrite: bool) -> bool:
    """Whether there is a service of that name to be overwritten; one that failed is deleted."""
    from azureml.core.webservice import Webservice

    old = next((service for service in Webservice.list(ws) if service.name == name), None)
    if old is None:
        return False
    if not overwrite:
        raise DeploymentError(
            f"There is a service {name!r} already. Pass overwrite=True to replace it, choose "
            "another name, or delete it with delete_service.",
            state=old.state,
        )
    print(f"Replacing the service {name!r} that was left from {old.created_time:%Y-%m-%d %H:%M}.")
    if old.state in ("Healthy", "Transitioning"):
        return True
    old.delete()
    return False


def _wait(service: AciWebservice, give_up_at: float, timeout: float) -> None:
    outcome: list[Exception | None] = []

    def poll() -> None:
        try:
            service.wait_for_deployment(timeout_sec=max(1.0, give_up_at - time.monotonic()))
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    # The SDK looks at the clock every five seconds only: the time is kept out here.
    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    form = "{desc} {elapsed}"
    with tqdm(desc=f"deploying {service.name}", bar_format=form, leave=False) as progress:
        while poller.is_alive() and time.monotonic() < give_up_at:
            poller.join(0.25)
            progress.refresh()
    if not outcome or (outcome[0] is not None and time.monotonic() >= give_up_at):
        raise _failed(service, DeploymentTimeout, f"was not healthy within {timeout:g} s")
    if outcome[0] is not None:
        raise _failed(service, DeploymentError, "could not be deployed") from outcome[0]


def _failed(service: AciWebservice, kind: type[DeploymentError], what: str) -> DeploymentError:
    with suppress(Exception):  # whatever it is, it must not hide the failure itself
        service.update_deployment_state()
    logs = _log_tail(service, _LOG_LINES)
    return kind(
        f"The service {service.name!r} {what}; its state is {service.state}. The last lines of "
        f"its container's log:\n{logs or '(there is none)'}\n"
        "Look for the first error in them: most often init() could not load the model, or an "
        "import of the script is missing from the environment. Then deploy with overwrite=True.",
        state=service.state,
        logs=logs,
    )


def _log_tail(service: AciWebservice, lines: int) -> str:
    try:
        return "\n".join((service.get_logs(num_lines=lines) or "").splitlines()[-lines:])
    except Exception as error:
        return f"(the log cannot be read: {error})"


def delete_service(service: AciWebservice) -> None:
    """Delete a service; nothing happens if it is gone already.

    Wraps the tutorial's ``service.delete()``. Raises a `DeploymentError` where that fails.
    """
    from azureml.exceptions import WebserviceException

    try:
        service.delete()
    except WebserviceException as error:
        raise DeploymentError(
            f"The service {service.name!r} could not be deleted: {error.message}",
            state=service.state,
        ) from error


@contextmanager
def closing_service(service: AciWebservice) -> Iterator[AciWebservice]:
    """``with closing_service(deploy_to_aci(...)) as service:`` deletes it at the end of the block.

    Also after an exception; a plain `deploy_to_aci` leaves the service, as in the tutorial.
    """
    try:
        yield service
    finally:
        delete_service(service)
