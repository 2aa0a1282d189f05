"""Export a service: the build context of its image, and a manifest for Kubernetes."""

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
from ..models import temporary_folder
from ..sdk import TRANSFER_TIMEOUT, Deadline, workspace_call
from .preflight import check_deployment, check_kinds

if TYPE_CHECKING:
    from azureml.core import Model, Workspace
    from azureml.core.model import InferenceConfig

_HERE = Path(__file__).parent
_APP = "azureml-app"  # copied to /var/azureml-app in the container


def package_service(
    ws: Workspace,
    model: Model | Sequence[Model],
    inference_config: InferenceConfig,
    folder: str | os.PathLike[str],
) -> Path:
    """Write the files to run a service on any Kubernetes cluster; nothing is built or started.

    Wraps ``Model.package(generate_dockerfile=True)``, which returns a Dockerfile and the files that
    it copies: scoring script, model and requirements. Microsoft's server does not check keys; the
    added ``gunicorn.conf.py`` does. ``kubernetes.yml`` holds a Secret with a new key, a Deployment,
    a Service and a HorizontalPodAutoscaler; its first lines are the commands to build, push, apply
    and call.

    Parameters
    ----------
    ws : azureml.core.Workspace
    model : azureml.core.Model or sequence of Model
        Service and image are named after the first model; the image's tag is the model's version.
    inference_config : azureml.core.model.InferenceConfig
        See `build_inference_config`.
    folder : path-like
        A new or empty folder, which is created when all files are complete.

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
        Packaging failed, or took more than an hour.
    """
    from azureml.core.model import Model

    models = check_kinds(ws, model or None, inference_config)  # `or None` rejects an empty list
    name = _kubernetes_name(models[0])
    check_deployment(name, models, inference_config)
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DeploymentError(f"{folder} is not empty. Pass a new folder, or empty this one first.")
    with (
        temporary_folder(target.parent) as temporary,
        workspace_call(ws, f"package {models[0].id}"),
    ):
        context = temporary / target.name
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
        manifest.touch(mode=0o600)  # because it holds a key
        key = secrets.token_urlsafe(32)
        manifest.write_text(template.substitute(name=name, image=image, key=key), "utf-8")
        if target.exists():
            target.rmdir()
        context.replace(target)
    return target


def _kubernetes_name(model: Model) -> str:
    """The model's name as a valid name in Kubernetes: ``sklearn-mnist``."""
    name = re.sub("[^a-z0-9]+", "-", model.name.lower()).strip("-")
    return (name if name[:1].isalpha() and len(name) > 2 else f"model-{name}")[:32].strip("-")
