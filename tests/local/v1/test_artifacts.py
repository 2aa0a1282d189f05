"""Artifacts: path traversal and missing artifacts."""

from __future__ import annotations

import pytest
from weights_service import WORKSPACE

ARTIFACTS = f"/artifact/v2.0{WORKSPACE}/artifacts"


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a\\..\\b", "a\0", ""]
)
def test_path_traversal_is_rejected(call, path):
    batch = f"{ARTIFACTS}/batch/metadata/LocalUpload/c"
    answer = call("POST", batch, json={"paths": [{"path": "fine.txt"}, {"path": path}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidPath")


def test_missing_artifact_is_not_found(call):
    for kind, status in (("contentinfo", 404), ("prefix/contentinfo", 200)):
        answer = call("GET", f"{ARTIFACTS}/{kind}/LocalUpload/c/never.txt")
        assert answer.status_code == status
        assert not answer.json().get("value")
