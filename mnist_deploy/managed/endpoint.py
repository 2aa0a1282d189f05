"""Connect with SDK v2; deploy to an online endpoint, call it, delete it."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client import RETRY_TIMEOUT, TIMEOUT, Format, post_images
from ..client.inputs import Inputs
from ..deployment.config import find_script
from ..deployment.failure import LOG_LINES, Attempt, report_deployment
from ..deployment.preflight import check_name, check_version
from ..errors import AuthenticationFailed, DeploymentError, ServiceUnavailable, WorkspaceError
from ..sdk import Deadline, check_kind, reason
from ..workspace import choose_workspace, connect_locally, reaching, read_config

if TYPE_CHECKING:
    import numpy as np
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment, ManagedOnlineEndpoint, Model, OnlineDeployment
    from azure.core.credentials import TokenCredential

INSTANCE_TYPE = "Standard_DS3_v2"  # 4 cores and 14 GB: the smallest that Azure recommends
DEPLOYMENT_TIMEOUT = 1800.0  # seconds
DELETE_TIMEOUT = 600.0  # seconds
LOG_TIMEOUT = 10.0  # seconds
_ENDPOINT = "azure.ai.ml.entities.OnlineEndpoint"
_DEPLOYMENT_HEADER = "azureml-model-deployment"
_SDK_LOGGER = "azure.ai.ml.operations._online_deployment_operations"


def connect_client(
    config: str | os.PathLike[str] | None = None,
    *,
    local: bool | None = None,
    credential: TokenCredential | None = None,
) -> MLClient:
    """Connect to a workspace with SDK v2, and print which one was chosen.

    Parameters
    ----------
    config, local
        See `connect_workspace`.
    credential : azure.core.credentials.TokenCredential, optional
        The login to Azure. By default ``DefaultAzureCredential()``, which tries the logins of
        this machine and opens no browser.

    Returns
    -------
    azure.ai.ml.MLClient
        The SDK's own class in both cases.

    Raises
    ------
    ConfigError, WorkspaceError
        See `connect_workspace`; or SDK v2 is not installed.
    """
    file, why = choose_workspace(config, local, credential)
    try:
        from azure.ai.ml import MLClient
    except ImportError as error:
        raise WorkspaceError(
            "SDK v2 is not installed. Run pip install 'mnist-deploy[sdk-v2]', which resolves all "
            "packages together; azure-ai-ml installed afterwards brings incompatible versions."
        ) from error
    if file is None:
        return connect_locally("connect_client", why)

    if credential is None:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    subscription, group, name = read_config(file)
    with reaching(name, file, "connect_client"):
        client = MLClient(credential, subscription, group, name)
        Deadline().call(client.workspaces.get, name)
    return client


def deploy_to_endpoint(
    client: MLClient,
    model: Model,
    environment: Environment,
    *,
    name: str,
    entry_script: str | os.PathLike[str] = "score.py",
    source_directory: str | os.PathLike[str] | None = None,
    deployment: str = "blue",
    instance_type: str = INSTANCE_TYPE,
    instance_count: int = 1,
    traffic: int = 100,
    timeout: float = DEPLOYMENT_TIMEOUT,
) -> ManagedOnlineEndpoint:
    """Deploy a model to an online endpoint and wait, with visible progress, until it is ready.

    The endpoint requires a key. It is created if it does not exist; a deployment of that name is
    updated.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    model : azure.ai.ml.entities.Model
        A registered model: ``client.models.get("sklearn_mnist", label="latest")``.
    environment : azure.ai.ml.entities.Environment
        A registered environment.
    name, deployment : str
        The names of the endpoint and of the deployment: 3 to 32 letters, digits and '-', beginning
        with a letter.
    entry_script : path-like
        The scoring script. If there is no ``score.py``, the tutorial's is used, and a line is
        printed.
    source_directory : path-like, optional
        A folder that is uploaded with all its files; the script's path is then relative to it. By
        default the script is uploaded alone.
    instance_type : str
        A VM size, instead of cores and memory of SDK v1.
    instance_count : int
        The number of virtual machines.
    traffic : int
        The share of the requests for this deployment, in percent; the other deployments share
        the rest in their present proportions. With 0, only requests that name the deployment
        reach it.
    timeout : float
        The time-out of the whole deployment in seconds; reading the log after a failure may take
        10 s more.

    Returns
    -------
    azure.ai.ml.entities.ManagedOnlineEndpoint

    Raises
    ------
    DeploymentError, DeploymentTimeout
        See `deploy_to_aci`; or a name or the traffic is not valid.
    """
    from azure.ai.ml import entities
    from azure.core.exceptions import ResourceNotFoundError

    _check_arguments(name, deployment, traffic, model, environment)
    script, path = find_script(entry_script, source_directory)
    deadline = Deadline(timeout)
    with (
        _code_folder(script, path, source_directory) as (folder, scoring_script),
        report_rollout(client, name, deployment, deadline),
    ):
        try:
            endpoint = deadline.call(client.online_endpoints.get, name)
        except ResourceNotFoundError:
            endpoint = entities.ManagedOnlineEndpoint(name=name, auth_mode="key")
            endpoint = finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
        shares = divide_traffic(endpoint.traffic, deployment, int(traffic))
        desired = entities.ManagedOnlineDeployment(
            name=deployment,
            endpoint_name=name,
            model=model.id,
            environment=environment.id,
            code_configuration=entities.CodeConfiguration(str(folder), scoring_script),
            instance_type=instance_type,
            instance_count=int(instance_count),
        )
        return roll_out(client, desired, shares, deadline)


@contextmanager
def _code_folder(
    script: Path, path: Path, source_directory: str | os.PathLike[str] | None
) -> Iterator[tuple[Path, str]]:
    """Yield the folder to upload, and the script's path in it; by default the script alone."""
    if source_directory is not None:
        yield Path(source_directory), script.as_posix()
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "code")
        folder.mkdir()
        shutil.copyfile(path, folder / path.name)
        yield folder, path.name


def _check_arguments(
    name: str, deployment: str, traffic: int, model: Model, environment: Environment
) -> None:
    """Raise an exception for arguments that Azure would reject minutes later."""
    check_name(name, "an endpoint", "letters")
    check_name(deployment, "a deployment", "letters")
    if traffic not in range(101):
        raise DeploymentError(f"traffic is {traffic!r}; expected 0 to 100 percent.")
    for argument, asset in (("model", model), ("environment", environment)):
        if not getattr(asset, "id", None):
            raise TypeError(
                f"{argument} is of {type(asset)}; expected the registered {argument} that "
                f"client.{argument}s.get(name, label='latest') returns."
            )
    check_version(model, environment)


def divide_traffic(present: dict[str, int], deployment: str, traffic: int) -> dict[str, int]:
    """Return the traffic rules with a share for one deployment; the others divide the rest."""
    others = {name: share for name, share in present.items() if share and name != deployment}
    total, left = sum(others.values()), 100 - traffic
    if traffic == 0:
        return {name: share for name, share in present.items() if share}
    if not total and left:
        raise DeploymentError(
            f"traffic={traffic} is not possible for {deployment!r}: no other deployment can "
            "receive the rest of the requests. Pass traffic=100, or 0."
        )
    shares = {name: left * share // total for name, share in others.items()}
    if shares:  # the remainder of the division is added to the largest share
        shares[max(shares, key=others.__getitem__)] += left - sum(shares.values())
    return {name: share for name, share in shares.items() if share} | {deployment: traffic}


def report_rollout(
    client: MLClient, name: str, deployment: str, deadline: Deadline
) -> AbstractContextManager[None]:
    """Show the progress of a deployment, and report its failure with state and log."""

    def read_state(error: Exception) -> str | None:
        if (getattr(error, "status_code", None) or 0) >= 400:
            return None  # the request was rejected: an existing deployment is of an earlier run
        try:
            found = Deadline(LOG_TIMEOUT).call(client.online_deployments.get, deployment, name)
        except Exception:
            return None
        return str(getattr(found.provisioning_state, "value", found.provisioning_state))

    def read_log(_: Exception) -> str:
        get_logs = client.online_deployments.get_logs
        return Deadline(LOG_TIMEOUT).call(get_logs, deployment, name, lines=LOG_LINES)

    subject = f"The deployment {deployment!r} of {name!r}"
    attempt = Attempt(
        name=name,
        subject=subject,
        interrupted=f"{subject} may exist, and cost money.",
        retry="Then deploy again.",
        read_state=read_state,
        read_log=read_log,
    )
    return report_deployment(attempt, deadline)


def roll_out(
    client: MLClient, deployment: OnlineDeployment, shares: dict[str, int], deadline: Deadline
) -> ManagedOnlineEndpoint:
    """Create a deployment, set the traffic rules, and return the endpoint."""
    with _quiet_sdk():
        finish(deadline, client.online_deployments.begin_create_or_update, deployment)
    endpoint = deadline.call(client.online_endpoints.get, deployment.endpoint_name)
    if shares != {each: share for each, share in endpoint.traffic.items() if share}:
        endpoint.traffic = shares
        finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
    return deadline.call(client.online_endpoints.get, deployment.endpoint_name)


def finish(deadline: Deadline, begin: Callable[..., Any], *arguments: object) -> Any:
    """Begin a long-running operation, and return its result."""
    return deadline.call(lambda: begin(*arguments).result())


@contextmanager
def _quiet_sdk() -> Iterator[None]:
    """Suppress the SDK's warning that the endpoint exists, and its advice on larger VM sizes.

    Suppress also the escape sequence that the SDK prints to standard error after each upload,
    which Jupyter shows as an empty red output.
    """
    logger = logging.getLogger(_SDK_LOGGER)
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def call_endpoint(
    client: MLClient,
    endpoint: ManagedOnlineEndpoint,
    inputs: Inputs,
    *,
    deployment: str | None = None,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    retry_timeout: float = RETRY_TIMEOUT,
    format: Format = "auto",
    allow_nan: bool = False,
) -> np.ndarray:
    """Predict the labels of inputs with an online endpoint, whose key is fetched.

    Replaces ``client.online_endpoints.invoke``, which requires a file of JSON. By default each
    request body stays below 1.5 MB, the maximum that Microsoft documents for managed endpoints.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint
    inputs, batch_size, timeout, retry_timeout, format, allow_nan
        See `post_images`; the inputs are its images.
    deployment : str, optional
        The deployment that responds; by default the traffic rules choose one for each request.

    Returns
    -------
    ndarray, shape (n,) or (n, k)
        See `post_images`.

    Raises
    ------
    TypeError, ValueError, ScoringError
        See `post_images`.
    """
    check_kind("endpoint", endpoint, _ENDPOINT, "client.online_endpoints.get(name)")
    if not endpoint.scoring_uri:
        raise ServiceUnavailable(
            f"the endpoint {endpoint.name!r} has no scoring URI yet. Fetch it again with "
            "client.online_endpoints.get(name) when its provisioning has succeeded."
        )
    try:
        keys = Deadline(timeout).call(client.online_endpoints.get_keys, endpoint.name)
    except Exception as error:
        raise AuthenticationFailed(
            f"The key of the endpoint {endpoint.name!r} cannot be fetched: {reason(error)}"
        ) from error
    return post_images(
        endpoint.scoring_uri,
        inputs,
        api_key=getattr(keys, "primary_key", None) or keys.access_token,
        batch_size=batch_size,
        timeout=timeout,
        retry_timeout=retry_timeout,
        format=format,
        allow_nan=allow_nan,
        headers={_DEPLOYMENT_HEADER: deployment} if deployment else None,
    )


def delete_endpoint(client: MLClient, endpoint: ManagedOnlineEndpoint) -> None:
    """Delete an endpoint with its deployments.

    An endpoint that does not exist is not an error.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint

    Raises
    ------
    DeploymentError
        The endpoint could not be deleted within 600 seconds.
    """
    check_kind("endpoint", endpoint, _ENDPOINT, "client.online_endpoints.get(name)")
    try:
        finish(Deadline(DELETE_TIMEOUT), client.online_endpoints.begin_delete, endpoint.name)
    except Exception as error:
        raise DeploymentError(
            f"The endpoint {endpoint.name!r} could not be deleted: {reason(error)} On Azure "
            "it may continue to cost money: try again, or delete it in the portal."
        ) from error
