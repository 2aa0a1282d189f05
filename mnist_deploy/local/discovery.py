"""The address of a running control plane, and the variables by which both SDKs find it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies_environment

import certifi

from .host import networking
from .private_files import write_private
from .tokens import derive

CLOUD = "MnistDeployLocal"
OWN_CERTIFICATE = b"\n# mnist_deploy local workspace\n"
# Variables by which SDK v2 would log in elsewhere, before it tries the managed identity.
OTHER_IDENTITIES = (
    "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_USERNAME",
    "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_SECRET",
)  # fmt: skip
NO_TELEMETRY = {
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# SDK v1 reads HOSTNAME as the name of its container; with the other two, docker-py would use TLS.
OTHER_DOCKER = ("HOSTNAME", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
DOCKER_SOCKET = "mnist-deploy-docker.sock"
DOCKER_PORT = re.compile(r"tcp://127\.0\.0\.1:\d+/[0-9a-f]{32}")  # on Windows, with its secret


def is_local_docker_host(value: str) -> bool:
    """Whether a DOCKER_HOST is that of a local workspace, which may have ended."""
    is_socket = value.startswith("unix://") and Path(value).name == DOCKER_SOCKET
    return is_socket or DOCKER_PORT.fullmatch(value) is not None


def drop_inherited_cloud() -> None:
    """Delete the variable that names the cloud of an ``MLClient`` of the parent process.

    SDK v2 sets AZUREML_CURRENT_CLOUD, and defines the cloud in its own process only. In a child
    process, its import would request Azure's list of clouds, and fail with an unknown cloud.
    """
    is_inherited = "azure.ai.ml" not in sys.modules
    if is_inherited and os.environ.get("AZUREML_CURRENT_CLOUD", "").startswith(f"{CLOUD}-"):
        del os.environ["AZUREML_CURRENT_CLOUD"]


@dataclass(frozen=True)
class ControlPlaneAddress:
    """The address, token and certificate of a control plane, read from ``endpoint.json``."""

    url: str
    pid: int
    token: str
    folder: Path
    docker_socket: str = ""

    def __repr__(self) -> str:
        return f"ControlPlaneAddress(url={self.url!r}, pid={self.pid})"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def docker_host(self) -> str:
        """The value of DOCKER_HOST by which docker-py finds the local workspace.

        On Windows it has the secret that each request needs: docker-py keeps the path of the URL.
        """
        scheme = "tcp" if networking.secret_of(self.docker_socket) else "unix"
        return f"{scheme}://{self.docker_socket}"

    @property
    def metadata_url(self) -> str:
        """The URL of the cloud metadata: http, because it is the scheme that both SDKs accept."""
        return self.url.replace("https", "http", 1) + "/metadata/endpoints"

    def write(self) -> None:
        document = {"url": self.url, "pid": self.pid, "token": self.token}
        document["docker_socket"] = self.docker_socket
        write_private(self.folder / "endpoint.json", json.dumps(document).encode())

    @classmethod
    def read(cls, folder: Path) -> ControlPlaneAddress | None:
        try:
            return cls(folder=folder, **json.loads((folder / "endpoint.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def https_environment(self) -> dict[str, str]:
        """The variables by which HTTPS clients trust this control plane beside the present roots.

        Writes the file of trusted roots that the variables name.
        """
        trusted = self._trusted_roots() + self._roots_of_other_programs()
        digest = hashlib.sha256(trusted).hexdigest()[:8]
        bundle = self.folder / f"roots-{digest}.pem"
        write_private(bundle, trusted + OWN_CERTIFICATE + self.certificate.read_bytes())
        # The data engine of azureml-core reads SSL_CERT_FILE.
        variables = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(bundle))
        if set(getproxies_environment()) - {"no"}:
            direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            if "127.0.0.1" not in direct.split(","):
                direct = f"{direct},127.0.0.1".lstrip(",")
            variables |= {"no_proxy": direct, "NO_PROXY": direct}
        return variables

    def _roots_of_other_programs(self) -> bytes:
        """The trusted roots of programs that read SSL_CERT_FILE, if the user has set it."""
        chosen = os.environ.get("SSL_CERT_FILE") or os.devnull
        is_known = chosen == os.environ.get("REQUESTS_CA_BUNDLE")  # of a local workspace
        if is_known or Path(chosen).parent == self.folder or not Path(chosen).is_file():
            return b""
        return b"\n" + Path(chosen).read_bytes()

    def _trusted_roots(self) -> bytes:
        """The roots that requests trusts in this process, without the added certificate."""
        chosen = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        trusted = Path(chosen or certifi.where())
        if trusted.is_dir():
            return b"\n".join(file.read_bytes() for file in sorted(trusted.glob("*.[0-9]")))
        if not trusted.is_file():
            trusted = Path(certifi.where())
        content = trusted.read_bytes()
        return content.rpartition(OWN_CERTIFICATE)[0] if trusted.parent == self.folder else content

    def environment(self) -> dict[str, str]:
        """The environment variables of a new process in which both SDKs use this control plane.

        The SDKs read the variables once. The process must not have those of `OTHER_IDENTITIES`.
        """
        own = {
            # Otherwise the SDK stores this cloud, with its temporary port, in the user's ~/.azure.
            "AZURE_CONFIG_DIR": str(self.folder / "azure"),
            # An https URI: MLflow needs no plug-in for it.
            "MLFLOW_TRACKING_URI": f"{self.url}/mlflow",
            "MLFLOW_TRACKING_TOKEN": self.token,
        }
        cloud = cloud_variables(self.url, self.metadata_url, self.token)
        return self.https_environment() | cloud | own


def cloud_variables(url: str, metadata_url: str, token: str) -> dict[str, str]:
    """The environment variables by which SDK v2 and azure-identity find a cloud and log in."""
    return {
        "ARM_CLOUD_METADATA_URL": metadata_url,
        "AZUREML_CURRENT_CLOUD": CLOUD,
        "MSI_ENDPOINT": f"{url}/msi/{derive(token, 'msi')}",
        # Otherwise DefaultAzureCredential tries several credentials in order.
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "REGISTRY_DISCOVERY_ENDPOINT_URL": url,
        **NO_TELEMETRY,
    }
