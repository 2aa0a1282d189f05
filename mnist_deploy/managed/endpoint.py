"""The tutorial's steps with SDK v2: connect, deploy to an online endpoint, call, delete."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client import PATIENCE, TIMEOUT, Format, post_images
from ..client.inputs import Inputs
from ..deployment.config import find_script
from ..deployment.preflight import check_name, check_version
from ..deployment.service import LOG_LINES, deploying
from ..errors import AuthenticationFailed, DeploymentError, ServiceUnavailable, WorkspaceError
from ..sdk import Deadline, check_kind, reason
from ..workspace import choose_workspace, connect_locally, reaching, read_config

if TYPE_CHECKING:
    import numpy as np
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment, ManagedOnlineEndpoint, Model, OnlineDeployment
    from azure.core.credentials import TokenCredential

INSTANCE_TYPE = "Standard_DS3_v2"  # 4 cores and 14 GB: the smallest that Azure recommends
DEPLOYMENT_LIMIT = 1800.0  # seconds
_DELETE_LIMIT = 600.0  # seconds
_LOG_LIMIT = 10.0  # seconds
_ENDPOINT = "azure.ai.ml.entities.OnlineEndpoint"
_BY_NAME = "azureml-model-deployment"  # the header that names a deployment


def connect_client(
    config: str | os.PathLike[str] | None = None,
    *,
    local: bool | None = None,
    credential: TokenCredential | None = None,
) -> MLClient:
    """Connect to the workspace with SDK v2; says which it is and where it looked.

    Parameters
    ----------
    config, local
        As of `connect_workspace`.
    credential : azure.core.credentials.TokenCredential, optional
        How to log in: then it is Azure. By default ``DefaultAzureCredential()``, which tries what
        this machine has, and opens no browser.

    Returns
    -------
    azure.ai.ml.MLClient
        The SDK's own class in both cases.

    Raises
    ------
    ConfigError, WorkspaceError
        As `connect_workspace`; or SDK v2 is not installed.
    """
    file, why = choose_workspace(config, local, credential)
    try:
        from azure.ai.ml import MLClient
    except ImportError as error:
        raise WorkspaceError(
            "SDK v2 is not installed. Run pip install 'mnist-deploy[sdk-v2]', which asks for all "
            "of it at once: added afterwards, pip takes packages that the rest does not admit."
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
    deployment: str = "blue",
    instance_type: str = INSTANCE_TYPE,
    instance_count: int = 1,
    traffic: int = 100,
    timeout: float = DEPLOYMENT_LIMIT,
) -> ManagedOnlineEndpoint:
    """Deploy a model to an online endpoint and wait, with visible progress, until it answers.

    The endpoint asks for a key. It is made if it is not there; a deployment of that name is
    changed in place, as Azure does.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    model : azure.ai.ml.entities.Model
        A registered one: ``client.models.get("sklearn_mnist", label="latest")``.
    environment : azure.ai.ml.entities.Environment
        Likewise.
    name, deployment : str
        Of the endpoint and of the deployment: 3 to 32 letters, digits and '-', a letter first.
    entry_script : path-like
        Uploaded alone. Where there is no ``score.py`` it is the tutorial's, and a line says so.
    instance_type : str
        A VM size, in place of v1's cores and memory.
    instance_count : int
    traffic : int
        The share of the requests that it gets, in percent; the other deployments keep theirs in
        proportion. With 0 it is reached by its name alone.
    timeout : float
        In seconds, for all of it; the log of a deployment that failed may take 10 more.

    Returns
    -------
    azure.ai.ml.entities.ManagedOnlineEndpoint

    Raises
    ------
    DeploymentError, DeploymentTimeout
        As `deploy_to_aci`; or a name or a share of the traffic is none.
    """
    from azure.ai.ml import entities
    from azure.core.exceptions import ResourceNotFoundError

    # Which says that it looks for the endpoint, and advises larger machines.
    logging.getLogger("azure.ai.ml.operations._online_deployment_operations").setLevel("ERROR")
    _check(name, deployment, traffic, model, environment)
    _, script = find_script(entry_script)
    deadline = Deadline(timeout)
    with tempfile.TemporaryDirectory() as parent, rolling_out(client, name, deployment, deadline):
        try:
            endpoint = deadline.call(client.online_endpoints.get, name)
        except ResourceNotFoundError:
            endpoint = entities.ManagedOnlineEndpoint(name=name, auth_mode="key")
            endpoint = finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
        shares = _share(endpoint.traffic, deployment, int(traffic))
        folder = Path(parent, "code")  # SDK v2 uploads folders: one with the script alone
        folder.mkdir()
        shutil.copyfile(script, folder / script.name)
        wanted = entities.ManagedOnlineDeployment(
            name=deployment,
            endpoint_name=name,
            model=model.id,
            environment=environment.id,
            code_configuration=entities.CodeConfiguration(str(folder), script.name),
            instance_type=instance_type,
            instance_count=int(instance_count),
        )
        return roll_out(client, wanted, shares, deadline)


def _check(
    name: str, deployment: str, traffic: int, model: Model, environment: Environment
) -> None:
    """Raise a `DeploymentError` for what would only fail minutes later, on Azure."""
    check_name(name, "an endpoint", "letters")
    check_name(deployment, "a deployment", "letters")
    if traffic not in range(101):
        raise DeploymentError(f"traffic is {traffic!r}; expected a share from 0 to 100 percent.")
    for what, asset in (("model", model), ("environment", environment)):
        if not getattr(asset, "id", None):
            raise TypeError(
                f"{what} is of {type(asset)}; expected the registered one that "
                f"client.{what}s.get(name, label='latest') gives."
            )
    check_version(model, environment)


def _share(present: dict[str, int], deployment: str, traffic: int) -> dict[str, int]:
    """The traffic with a share for one deployment, and the rest for the others in proportion."""
    others = {name: share for name, share in present.items() if share and name != deployment}
    total, left = sum(others.values()), 100 - traffic
    if traffic == 0:
        return {name: share for name, share in present.items() if share}
    if not total and left:
        raise DeploymentError(
            f"{deployment!r} cannot get {traffic} % of the traffic: no other deployment gets the "
            "rest. Pass traffic=100, or 0."
        )
    shares = {name: left * share // total for name, share in others.items()}
    if shares:  # what is lost to rounding goes to the largest
        shares[max(shares, key=others.__getitem__)] += left - sum(shares.values())
    return {name: share for name, share in shares.items() if share} | {deployment: traffic}


def rolling_out(
    client: MLClient, name: str, deployment: str, deadline: Deadline
) -> AbstractContextManager[None]:
    """Show that a deployment is made, and say all that is known of one that failed."""

    def read_state(error: Exception) -> str | None:
        if (getattr(error, "status_code", None) or 0) >= 400:
            return None  # it was refused: what is there now is of an earlier run
        try:
            found = Deadline(_LOG_LIMIT).call(client.online_deployments.get, deployment, name)
        except Exception:
            return None
        return str(getattr(found.provisioning_state, "value", found.provisioning_state))

    def read_log(_: Exception) -> str:
        get_logs = client.online_deployments.get_logs
        return Deadline(_LOG_LIMIT).call(get_logs, deployment, name, lines=LOG_LINES)

    return deploying(
        name, f"The deployment {deployment!r} of {name!r}", deadline, read_state, read_log,
        left=", and cost money", again="deploy again",
    )  # fmt: skip


def roll_out(
    client: MLClient, deployment: OnlineDeployment, shares: dict[str, int], deadline: Deadline
) -> ManagedOnlineEndpoint:
    """Make a deployment, give each its share of the traffic, and return their endpoint."""
    finish(deadline, client.online_deployments.begin_create_or_update, deployment)
    endpoint = deadline.call(client.online_endpoints.get, deployment.endpoint_name)
    if shares != {each: share for each, share in endpoint.traffic.items() if share}:
        endpoint.traffic = shares
        finish(deadline, client.online_endpoints.begin_create_or_update, endpoint)
    return deadline.call(client.online_endpoints.get, deployment.endpoint_name)


def finish(deadline: Deadline, begin: Callable[..., Any], *arguments: object) -> Any:
    """Begin something long, and wait for its outcome."""
    return deadline.call(lambda: begin(*arguments).result())


def call_endpoint(
    client: MLClient,
    endpoint: ManagedOnlineEndpoint,
    inputs: Inputs,
    *,
    deployment: str | None = None,
    batch_size: int | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
    format: Format = "auto",
    allow_nan: bool = False,
) -> np.ndarray:
    """Predict the labels of inputs with an online endpoint; its key is fetched.

    In place of ``client.online_endpoints.invoke``, which takes a file of JSON. By default each
    request body stays below 1.5 MB, the maximum that Microsoft documents for managed endpoints.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint
    inputs, batch_size, timeout, patience, format, allow_nan
        As the images and options of `post_images`.
    deployment : str, optional
        The deployment that responds; by default the traffic rules choose one for each request.

    Returns
    -------
    ndarray, shape (n,) or (n, k)
        As of `post_images`.

    Raises
    ------
    TypeError, ValueError, ScoringError
        As `post_images`.
    """
    check_kind("endpoint", endpoint, _ENDPOINT, "client.online_endpoints.get(name)")
    if not endpoint.scoring_uri:
        raise ServiceUnavailable(f"the endpoint {endpoint.name!r} has no scoring URI yet.")
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
        patience=patience,
        format=format,
        allow_nan=allow_nan,
        headers={_BY_NAME: deployment} if deployment else None,
    )


def delete_endpoint(client: MLClient, endpoint: ManagedOnlineEndpoint) -> None:
    """Delete an endpoint with its deployments; nothing happens if it is gone already.

    Parameters
    ----------
    client : azure.ai.ml.MLClient
    endpoint : azure.ai.ml.entities.ManagedOnlineEndpoint

    Raises
    ------
    DeploymentError
        It could not be deleted, or was not within 600 seconds.
    """
    check_kind("endpoint", endpoint, _ENDPOINT, "client.online_endpoints.get(name)")
    try:
        finish(Deadline(_DELETE_LIMIT), client.online_endpoints.begin_delete, endpoint.name)
    except Exception as error:
        raise DeploymentError(
            f"The endpoint {endpoint.name!r} could not be deleted: {reason(error)} On Azure "
            "it may go on costing money: try again, or delete it in the portal."
        ) from error
