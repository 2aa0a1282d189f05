"""Take a service out of Azure: all that an image is built of, and how Kubernetes runs it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..errors import DeploymentError
from ..models import passing_folder
from ..sdk import TRANSFER_TIMEOUT, Deadline, workspace_call
from .preflight import check_deployment, check_kinds

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from azureml.core.model import InferenceConfig

_HERE = Path(__file__).parent
_APP = "azureml-app"  # what the container has at /var/azureml-app


def package_service(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    folder: str | os.PathLike[str],
) -> Path:
    """Write what it takes to run a service on any Kubernetes: nothing is built or started.

    Wraps ``Model.package(generate_dockerfile=True)``, which gives a Dockerfile and the files that
    it copies: the scoring script, the model, what the environment installs. Microsoft's server
    asks for no key, so a ``gunicorn.conf.py`` is added beside the script that does. A manifest,
    ``kubernetes.yml``, has a Secret with a new key, a Deployment, a Service and a
    HorizontalPodAutoscaler; its first lines say how to build, push, apply and call.

    Parameters
    ----------
    ws : azureml.core.Workspace
    model : azureml.core.Model or sequence of them
        The first gives the service and the image their name, and the image its tag.
    inference_config
        See `build_inference_config`.
    folder : path-like
        New or empty; it appears only when all is there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DeploymentError
        The folder is not empty, the script does not compile or lacks init() or run(), or model
        and environment name different versions of scikit-learn.
    WorkspaceError
        The workspace could not package it, or did not within an hour.
    """
    from azureml.core.model import Model

    models = check_kinds(ws, model or None, inference_config)  # it is named after a model
    name = _name_of(models[0])
    check_deployment(name, models, inference_config)
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DeploymentError(f"{folder} is not empty. Name a new folder, or empty that one first.")
    with passing_folder(target.parent) as passing, workspace_call(ws, f"package {models[0].id}"):
        context = passing / target.name
        deadline = Deadline(TRANSFER_TIMEOUT)
        with deadline.show_progress(f"packaging {name}"):
            package = deadline.call(
                Model.package, ws, models, inference_config, generate_dockerfile=True
            )
            deadline.call(package.wait_for_creation)
            deadline.call(package.save, str(context))
        shutil.copyfile(_HERE / "key_check.py", context / _APP / "gunicorn.conf.py")
        template = Template((_HERE / "kubernetes.yml").read_text(encoding="utf-8"))
        manifest, image = context / "kubernetes.yml", f"{name}:{models[0].version}"
        manifest.touch(mode=0o600)  # it holds a key
        key = secrets.token_urlsafe(32)
        manifest.write_text(template.substitute(name=name, image=image, key=key), "utf-8")
        if target.exists():
            target.rmdir()
        context.replace(target)
    return target


def _name_of(model: Model) -> str:
    """A name that Kubernetes takes, for an image as well: ``sklearn-mnist``."""
    name = re.sub("[^a-z0-9]+", "-", model.name.lower()).strip("-")
    return (name if name[:1].isalpha() and len(name) > 2 else f"model-{name}")[:32].strip("-")
