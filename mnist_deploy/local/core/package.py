"""A container spec as a Docker build context: its image runs the same script and models."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from packaging.utils import canonicalize_name

from .container_folder import MODELS
from .container_spec import ContainerSpec, Upload
from .faults import Invalid, NotSupported
from .requirements import conda_to_pip, requirements

APP = "azureml-app"  # a folder of the context; in the container below /var, as on Azure
# Each of these packages installs Microsoft's inference server.
SERVERS = {"azureml-defaults", "azureml-inference-server-http"}

DOCKERFILE = """\
# The packaged service, on port 5001: docker build --tag NAME .
FROM python:{python}-slim

COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt \\
    && useradd --uid 1001 --create-home scoring

COPY --chown=1001:1001 {app} /var/{app}
WORKDIR /var/{app}
ENV {variables}
USER 1001
EXPOSE 5001
CMD {command}
"""


def context_texts(container_spec: ContainerSpec) -> dict[str, str]:
    """The files of the context that are generated, by their names.

    Raises
    ------
    NotSupported
        The environment does not list its packages.
    Invalid
        A Dockerfile cannot hold the value of an environment variable.
    """
    if container_spec.conda is None:
        raise NotSupported(
            "packages of an environment that does not list its packages "
            "(user_managed_dependencies): list the packages in a conda file"
        )
    return {
        "Dockerfile": dockerfile(container_spec),
        "requirements.txt": requirements_file(container_spec.conda),
    }


def context_uploads(container_spec: ContainerSpec) -> Iterator[Upload]:
    """Yield the uploads of the context; `path` is the folder to which they are copied."""
    for upload in container_spec.uploads:
        if upload.path == container_spec.script != entry_script(container_spec):
            continue  # the SDK's driver program, which Microsoft's server does not need
        yield replace(upload, path=str(PurePosixPath(APP, upload.path).parent))
    for model in container_spec.models:
        for artifact in model.artifacts:
            yield Upload(artifact, f"{APP}/{MODELS}/{model.name}/{model.version}")


def entry_script(container_spec: ContainerSpec) -> str:
    return container_spec.variables.get("AZUREML_ENTRY_SCRIPT", container_spec.script)


def dockerfile(container_spec: ContainerSpec) -> str:
    folder = f"/var/{APP}/{MODELS}"
    if len(container_spec.models) == 1:
        folder += f"/{container_spec.models[0].name}/{container_spec.models[0].version}"
    variables = {
        "PYTHONUNBUFFERED": "1",
        "AML_APP_ROOT": f"/var/{APP}",
        "AZUREML_ENTRY_SCRIPT": entry_script(container_spec),
        **container_spec.variables,
        "AZUREML_MODEL_DIR": folder,
    }
    return DOCKERFILE.format(
        python=python_version(container_spec.conda),
        app=APP,
        variables=" \\\n    ".join(f"{name}={quote(name, variables[name])}" for name in variables),
        command=json.dumps(["azmlinfsrv", "--entry_script", entry_script(container_spec)]),
    )


def quote(name: str, value: str) -> str:
    """The value of an environment variable in the syntax of a Dockerfile."""
    if not re.fullmatch(r"\w+", name, re.ASCII) or "\n" in value:
        raise Invalid(
            "environment variable",
            f"{name}={value!r} cannot be written in a Dockerfile: expected a name of letters, "
            "digits and '_', and a value of one line.",
        )
    return '"' + re.sub(r'(["$\\])', r"\\\1", value) + '"'


def python_version(conda: dict[str, Any] | None) -> str:
    """The Python version that a conda file pins, or that of this Python: ``3.11``."""
    for requirement in requirements((conda or {}).get("dependencies")):
        for pin in requirement.specifier if requirement.name == "python" else ():
            if pin.operator == "==":
                return pin.version.removesuffix(".*")
    return ".".join(platform.python_version_tuple()[:2])


def list_or_empty(value: Any) -> list[Any]:
    """The value if it is a list, as is expected in a conda file; otherwise an empty list."""
    return value if isinstance(value, list) else []


def requirements_file(conda: dict[str, Any]) -> str:
    """The packages of a conda file in the syntax of pip, with Microsoft's inference server."""
    lines: list[str] = []
    for entry in list_or_empty(conda.get("dependencies")):
        if isinstance(entry, dict):
            lines += map(str, list_or_empty(entry.get("pip")))
        elif not re.match(r"(\S*::)?(python|pip)\b(?![-.])", str(entry)):
            lines.append(conda_to_pip(str(entry)))
    known = {canonicalize_name(each.name) for each in requirements([{"pip": lines}])}
    if not known & SERVERS:
        lines.append("azureml-inference-server-http<2")
    if "azureml-defaults" in known and "setuptools" not in known:
        lines.append("setuptools<81  # azureml-core imports its pkg_resources")
    return "\n".join([*lines, ""])
