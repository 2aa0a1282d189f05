"""Packages: the build context of a container, for a build on another machine.

A package consists of two files that the SDK downloads: ``context.json``, which lists the files of
the build context, and a log. Packages end with the control plane, as services do.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
from flask import Blueprint, Response
from msgspec import Struct

from ..bodies import body
from ..core.faults import NotSupported
from ..core.package import context_texts, context_uploads
from ..rest import endpoints, state, store
from .artifacts import content_uri
from .container_specs import make_container_spec
from .environments import UNREGISTERED
from .models import MMS
from .operations import PACKAGE, make_accepted_response, package_path

package_api = Blueprint("packages", __name__)


class PackageRequest(Struct, rename="camel"):
    image_request: dict[str, Any]
    package_type: str


@package_api.post(f"{MMS}/packages")
def create_package(**_: str) -> Response:
    requested = body(PackageRequest)
    if requested.package_type != "DockerBuildContext":
        raise NotSupported(
            "packages that are images, which would need a Docker engine: pass "
            "generate_dockerfile=True, save() the package, and run 'docker build' in its folder"
        )
    container_spec = make_container_spec(requested.image_request)
    texts, uploads = context_texts(container_spec), list(context_uploads(container_spec))
    for upload in uploads:
        store().check_uploaded(upload.artifact)
    context = {
        "context": [
            *(inline(name, text) for name, text in texts.items()),
            *(remote(upload.artifact, upload.path, upload.unpack) for upload in uploads),
        ],
        "environment": name_environment(requested.image_request.get("environment") or {}),
    }
    log = [
        *(f"# {name}\n{text}" for name, text in texts.items()),
        *(f"{upload.artifact} is copied to {upload.path}" for upload in uploads),
        "No image is built here: save() the package, and run 'docker build' in its folder.",
    ]
    operation = endpoints().operations.begin(PACKAGE)
    kept = [package_path(operation), *(upload.artifact for upload in uploads)]
    state().kept_artifacts.extend(kept)  # a GC root of the store
    store().write(package_path(operation, "context.json"), [msgspec.json.encode(context)])
    store().write(package_path(operation, "log.txt"), ["\n".join([*log, ""]).encode()])
    operation.resource = content_uri(package_path(operation, "context.json"), "read")
    operation.finish()
    return make_accepted_response(operation)


def name_environment(environment: dict[str, Any]) -> dict[str, str]:
    """The environment whose registry the SDK requests; if it is missing, the SDK registers one."""
    name, version = environment.get("name"), environment.get("version")
    return {"name": name, "version": version} if name and version else UNREGISTERED


def inline(name: str, text: str) -> dict[str, str]:
    content = b64encode(text.encode()).decode()
    return {"entryType": "inline", "encoding": "base64", "content": content, "path": name}


def remote(artifact: str, folder: str, unpack: bool) -> dict[str, Any]:
    uri = f"aml://artifact/{artifact}"
    return {"entryType": "remote", "uri": uri, "unpack": unpack, "path": folder}
