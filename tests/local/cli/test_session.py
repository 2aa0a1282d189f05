"""The environment that `exec` and `serve` prepare, as far as Docker is concerned."""

from __future__ import annotations

from mnist_deploy.local.cli.session import inherited_variables


def test_docker_variables_of_other_hosts_are_removed(monkeypatch):
    for name in ("HOSTNAME", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "AZURE_CLIENT_ID", "KEPT"):
        monkeypatch.setenv(name, "x")
    assert inherited_variables(docker=False).get("KEPT") == "x"
    left_out = {"HOSTNAME", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "AZURE_CLIENT_ID"}
    assert left_out.isdisjoint(inherited_variables(docker=False))


def test_real_docker_keeps_its_variables(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://docker:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    kept = inherited_variables(docker=True)
    assert (kept["DOCKER_HOST"], kept["DOCKER_TLS_VERIFY"]) == ("tcp://docker:2376", "1")
