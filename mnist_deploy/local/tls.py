"""The loopback certificate, the bearer token, and what makes the SDK use them.

The SDK insists on https, on a cloud it knows and on a decodable JWT. All three are
made anew at each start, readable by their user alone, and worth nothing elsewhere.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies_environment

import certifi
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOUD = "MnistDeployLocal"
TENANT = "00000000-0000-0000-0000-000000000001"
LIFETIME = dt.timedelta(days=365)
OWN_CERTIFICATE = b"\n# mnist_deploy local workspace\n"
# Variables by which SDK v2 would log in elsewhere, before it asks here.
OTHER_IDENTITIES = (
    "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_USERNAME",
    "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_SECRET",
)  # fmt: skip
NO_TELEMETRY = {
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
}


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its user can read, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # a full disk does not say where
        raise
    return path


def create_token() -> str:
    """A JWT that the SDK can decode; the signing key, thrown away, makes it unguessable."""
    now = dt.datetime.now(dt.UTC)
    claims = {"iat": now, "exp": now + LIFETIME, "tid": TENANT, "oid": TENANT, "name": "local user"}
    return jwt.encode(claims, secrets.token_bytes(32), algorithm="HS256")


def create_server_context(folder: Path) -> ssl.SSLContext:
    """Make a certificate for 127.0.0.1 under `folder` and an SSL context that serves it.

    Leaves ``certificate.pem`` and ``key.pem`` (mode 0600).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # A name that no other has: of two roots of one name, OpenSSL looks at the first only.
    common_name = f"mnist_deploy local workspace {secrets.token_hex(8)}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        # It vouches for itself alone: whoever gets hold of the key can sign for nobody else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    certificate_file = write_private(folder / "certificate.pem", certificate.public_bytes(pem))
    key_file = write_private(
        folder / "key.pem",
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return context


def derive(token: str, purpose: str) -> str:
    """A secret of its own for `purpose`, which does not give the token away."""
    return hmac.new(token.encode(), purpose.encode(), "sha256").hexdigest()


@dataclass(frozen=True)
class Endpoint:
    """Where a running control plane is found, as it wrote it into ``endpoint.json``."""

    url: str
    pid: int
    token: str
    folder: Path

    def __repr__(self) -> str:
        return f"Endpoint(url={self.url!r}, pid={self.pid})"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def metadata_url(self) -> str:
        """Where the cloud describes itself: over http, the only way that both SDKs can read."""
        return self.url.replace("https", "http", 1) + "/metadata/endpoints"

    def write(self) -> None:
        document = {"url": self.url, "pid": self.pid, "token": self.token}
        write_private(self.folder / "endpoint.json", json.dumps(document).encode())

    @classmethod
    def read(cls, folder: Path) -> Endpoint | None:
        try:
            return cls(folder=folder, **json.loads((folder / "endpoint.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def https_environment(self) -> dict[str, str]:
        """The variables that make https to this endpoint work, and leave all other https alone.

        Writes the file of trusted roots that they name, if need be anew.
        """
        trusted = self._trusted_roots()
        digest = hashlib.sha256(trusted).hexdigest()[:8]
        bundle = self.folder / f"roots-{digest}.pem"
        write_private(bundle, trusted + OWN_CERTIFICATE + self.certificate.read_bytes())
        variables = {"REQUESTS_CA_BUNDLE": str(bundle)}
        if set(getproxies_environment()) - {"no"}:
            direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            if "127.0.0.1" not in direct.split(","):
                direct = f"{direct},127.0.0.1".lstrip(",")
            variables |= {"no_proxy": direct, "NO_PROXY": direct}
        return variables

    def _trusted_roots(self) -> bytes:
        """What requests trusts in this process, without what was added for this endpoint."""
        chosen = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        trusted = Path(chosen or certifi.where())
        if trusted.is_dir():
            return b"\n".join(file.read_bytes() for file in sorted(trusted.glob("*.[0-9]")))
        if not trusted.is_file():
            trusted = Path(certifi.where())
        content = trusted.read_bytes()
        return content.rpartition(OWN_CERTIFICATE)[0] if trusted.parent == self.folder else content

    def environment(self) -> dict[str, str]:
        """The variables that lead a bare SDK, v1 or v2, to this endpoint and nowhere else.

        For a process that is yet to start: the SDKs read them once. It must not have those of
        `OTHER_IDENTITIES`.
        """
        return self.https_environment() | {
            "ARM_CLOUD_METADATA_URL": self.metadata_url,
            "AZUREML_CURRENT_CLOUD": CLOUD,
            # Else the SDK keeps this cloud, with its port of today, in the user's ~/.azure.
            "AZURE_CONFIG_DIR": str(self.folder / "azure"),
            "MSI_ENDPOINT": f"{self.url}/msi/{derive(self.token, 'msi')}",
            # DefaultAzureCredential tries one after the other: it must end with this one.
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "REGISTRY_DISCOVERY_ENDPOINT_URL": self.url,
            **NO_TELEMETRY,
        }
