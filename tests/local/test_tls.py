"""The certificate, the token and the environment variables of the control plane."""

from __future__ import annotations

import os
import resource
import ssl
import stat
import sys
from pathlib import Path

import certifi
import jwt
import pytest
import requests
from forgery import is_trusted, make_forged_context

from mnist_deploy.local.discovery import (
    CLOUD,
    OTHER_IDENTITIES,
    ControlPlaneAddress,
    drop_inherited_cloud,
)
from mnist_deploy.local.private_files import write_private
from mnist_deploy.local.tls import create_server_context
from mnist_deploy.local.tokens import create_token, derive


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def lone_endpoint(tmp_path, monkeypatch) -> ControlPlaneAddress:
    """An address and a certificate without a server, in an environment without proxies."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in (
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
        ):
            monkeypatch.delenv(name)
    create_server_context(tmp_path)
    return ControlPlaneAddress("https://127.0.0.1:1", 1, create_token(), tmp_path)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_private_files_are_private_under_every_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        file = write_private(tmp_path / "secret", b"content")
    finally:
        os.umask(before)
    assert mode(file) == 0o600 & ~mask
    if not mask & 0o400:
        assert file.read_bytes() == b"content"


def test_failed_write_of_a_private_file_leaves_no_file(tmp_path):
    (tmp_path / "secret").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "secret", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_full_disk_is_reported_with_its_path(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path / "secret")):
            write_private(tmp_path / "secret", b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


# Python 3.13 sets both for every client.
STRICT = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


@pytest.mark.parametrize("flags", [ssl.VerifyFlags.VERIFY_DEFAULT, STRICT])
def test_certificate_is_trusted_for_loopback_and_cannot_sign_others(tmp_path, flags):
    served = create_server_context(tmp_path)
    assert mode(tmp_path / "key.pem") == 0o600
    client = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    client.verify_flags |= flags
    assert is_trusted(served, client, "127.0.0.1")
    assert not is_trusted(served, client, "management.azure.com")
    assert not is_trusted(
        make_forged_context(tmp_path, "management.azure.com"), client, "management.azure.com"
    )


def test_token_is_a_fresh_jwt_and_derived_secrets_do_not_reveal_it():
    token = create_token()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert {"exp", "tid", "iat"} <= claims.keys()
    assert token != create_token()
    secrets = {derive(token, purpose) for purpose in ("msi", "discovery", "read x", "write x")}
    assert len(secrets) == 4
    assert not any(part in secret for secret in secrets for part in token.split("."))


def test_saved_address_is_read_unchanged_and_its_repr_hides_the_token(lone_endpoint):
    lone_endpoint.write()
    assert ControlPlaneAddress.read(lone_endpoint.folder) == lone_endpoint
    assert mode(lone_endpoint.folder / "endpoint.json") == 0o600
    assert lone_endpoint.token not in f"{lone_endpoint!r} {lone_endpoint!s}"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"url": 1}', b"\xff"])
def test_invalid_address_file_is_ignored(tmp_path, content):
    if content is not None:
        (tmp_path / "endpoint.json").write_bytes(content)
    assert ControlPlaneAddress.read(tmp_path) is None


def certificates(bundle: str) -> int:
    return Path(bundle).read_text().count("BEGIN CERTIFICATE")


def test_public_certificates_stay_trusted(lone_endpoint, monkeypatch):
    public = certificates(certifi.where())
    for _ in range(3):  # connecting again adds nothing more
        variables = lone_endpoint.https_environment()
        assert certificates(variables["REQUESTS_CA_BUNDLE"]) == public + 1
        assert variables["SSL_CERT_FILE"] == variables["REQUESTS_CA_BUNDLE"]
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, variables[name])


def test_roots_of_ssl_cert_file_stay_trusted(lone_endpoint, monkeypatch, tmp_path):
    folder = tmp_path / "company"
    folder.mkdir()
    create_server_context(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "certificate.pem"))
    bundle = lone_endpoint.https_environment()["SSL_CERT_FILE"]
    assert certificates(bundle) == certificates(certifi.where()) + 2


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_roots_of_a_company_stay_trusted(lone_endpoint, monkeypatch, tmp_path, name):
    folder = tmp_path / "company"
    folder.mkdir()
    create_server_context(folder)
    own = folder / "certificate.pem"
    monkeypatch.setenv(name, str(own))
    bundle = lone_endpoint.https_environment()["REQUESTS_CA_BUNDLE"]
    assert own.read_text().strip() in Path(bundle).read_text()
    assert certificates(bundle) == 2
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert lone_endpoint.https_environment()["REQUESTS_CA_BUNDLE"] == bundle
    assert certificates(bundle) == 2


def test_loopback_requests_bypass_the_proxy(lone_endpoint, monkeypatch):
    assert "no_proxy" not in lone_endpoint.https_environment()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    for _ in range(2):
        variables = lone_endpoint.https_environment()
        assert variables["no_proxy"] == variables["NO_PROXY"] == "intranet.example,127.0.0.1"
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, variables[name])
    assert not requests.utils.get_environ_proxies("https://127.0.0.1:1/")
    assert requests.utils.get_environ_proxies("https://example.com/")


def test_environment_variables_lead_to_the_workspace_and_hold_the_token_for_mlflow_alone(
    lone_endpoint,
):
    variables = lone_endpoint.environment()
    host = lone_endpoint.url.removeprefix("https://")
    assert variables["ARM_CLOUD_METADATA_URL"] == f"http://{host}/metadata/endpoints"
    assert variables["MSI_ENDPOINT"].startswith(f"{lone_endpoint.url}/msi/")
    assert variables["AZURE_TOKEN_CREDENTIALS"] == "ManagedIdentityCredential"
    assert variables.pop("MLFLOW_TRACKING_TOKEN") == lone_endpoint.token  # MLflow sends no other
    assert lone_endpoint.token not in str(variables)
    assert not variables.keys() & set(OTHER_IDENTITIES)


@pytest.mark.parametrize(
    ("cloud", "is_loaded", "kept"),
    [
        (f"{CLOUD}-40000", False, None),  # of an MLClient of the parent process
        (f"{CLOUD}-40000", True, f"{CLOUD}-40000"),  # of one of this process
        (CLOUD, False, CLOUD),  # of `exec`, with the URL of its list of clouds
        ("AzureChinaCloud", False, "AzureChinaCloud"),
        (None, False, None),
    ],
)
def test_cloud_of_an_mlclient_is_dropped_in_child_processes_only(
    monkeypatch, cloud, is_loaded, kept
):
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud or "")
    if cloud is None:
        monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    monkeypatch.setitem(sys.modules, "azure.ai.ml", sys)
    if not is_loaded:
        monkeypatch.delitem(sys.modules, "azure.ai.ml")
    drop_inherited_cloud()
    assert os.environ.get("AZUREML_CURRENT_CLOUD") == kept
