"""Requests without authorization are rejected, and no name leaves the store's folder."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import shutil
import ssl
import tarfile
import urllib.parse
from pathlib import Path

import psutil
import pytest
import requests
from forgery import is_trusted, make_forged_context
from rest import ARTIFACTS, MMS, Rest
from weights_service import WORKSPACE

from mnist_deploy import local
from mnist_deploy.local.core.container_folder import build_folder
from mnist_deploy.local.core.container_spec import ContainerSpec, Upload
from mnist_deploy.local.core.faults import Fault
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.tls import create_server_context
from mnist_deploy.local.tokens import derive

pytestmark = pytest.mark.faults

ENVIRONMENTS = f"/environment/v1.0{WORKSPACE}/environments"
SECRET = b"the secret of a file outside the store"


@pytest.fixture
def rest(home) -> Rest:
    return Rest(local.start(home))


# Only the loopback.

PROC_NET = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
                found.add(match[1])
    return found


@pytest.mark.skipif(not PROC_NET[0].exists(), reason="this system has no /proc/net")
def test_listening_sockets_are_all_on_the_loopback_address(rest, account):
    """Sockets that control plane and containers listen on."""
    for name in ("one", "two"):
        script = "def init(): pass\ndef run(raw): pass\n"
        resources = {"containerResourceRequirements": {"cpu": 2, "memoryInGB": 1}}
        assert rest.wait(rest.deploy(name, script, **resources))["state"] == "Succeeded"
    control_plane = psutil.Process(rest.endpoint.pid)
    process_tree = [control_plane, *control_plane.children(recursive=True)]
    assert len(process_tree) >= 3
    ours = set().union(*(sockets_of(process.pid) for process in process_tree))
    addresses = set()
    for table in PROC_NET:
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            address, state, inode = fields[1], fields[3], fields[9]
            if state == "0A" and inode in ours:
                addresses.add(address)
    account.times = len(addresses)
    assert len(addresses) == 3
    loopback = f"{int.from_bytes(bytes([127, 0, 0, 1]), 'little'):08X}"
    account.lost += [address for address in addresses if address.split(":")[0] != loopback]
    account.found = "each on 127.0.0.1 alone, in /proc/net/tcp and tcp6"


def test_request_without_the_token_is_rejected(rest, account):
    """Requests without the token, or with another."""
    model = rest.register("private", SECRET)
    blob = next((local.home_folder(rest.endpoint.folder.parent) / "store/blobs").iterdir()).name
    paths = [
        "/", "/subscriptions", WORKSPACE, f"{MMS}/models", f"{MMS}/models/{model}",
        f"{MMS}/services", f"{MMS}/services/a/listkeys", f"{MMS}/assets/a", f"{MMS}/images",
        f"{ENVIRONMENTS}/", f"{ENVIRONMENTS}/a", f"{ARTIFACTS}/prefix/contentinfo/LocalUpload/a/b",
        "/clients", "/discovery/x", "/msi/x", f"/blobs/{blob}", f"/blobs/{blob}?sig=x",
    ]  # fmt: skip
    read, write = (derive(rest.endpoint.token, f"{right} {blob}") for right in ("read", "write"))
    tokens = [None, "", "Bearer ", "Bearer null", f"Bearer {rest.endpoint.token}x",
              f"Bearer {derive(rest.endpoint.token, 'msi')}",
              f"Bearer {rest.endpoint.token.swapcase()}"]  # fmt: skip
    tries = [(method, path, token) for method in ("GET", "POST", "PUT", "DELETE")
             for path in paths for token in tokens]  # fmt: skip
    tries.append(("PUT", f"/blobs/{blob}?sig={read}", None))
    tries.append(("GET", f"/blobs/{blob}?sig={write}", None))
    with requests.Session() as session:
        session.trust_env, session.verify = False, str(rest.endpoint.certificate)
        for method, path, token in tries:
            headers = {} if token is None else {"Authorization": token}
            answer = session.request(method, rest.endpoint.url + path, headers=headers, timeout=10)
            account.times += 1
            if answer.status_code not in (401, 403) or SECRET in answer.content:
                account.lost.append(f"{method} {path}: {answer.status_code}")
    assert rest.is_whole(rest.models()[model])
    account.found = "401 or 403 each time"


# No way out of the store.

UPWARDS = [
    "../secret.txt", "../../secret.txt", "../../../secret.txt", "a/../../secret.txt",
    "a/b/../../../../secret.txt", "./../secret.txt", "..", "../", "...//../secret.txt",
    "..\\secret.txt", "a\\..\\..\\secret.txt", "{secret}", "/{secret}", "//{secret}",
    "file://{secret}", "~/secret.txt", "secret.txt\0.bin", "..\0/secret.txt", "C:\\secret.txt",
    "..;/secret.txt", "..\u2215secret.txt", "\uff0e\uff0e/secret.txt", ". ./secret.txt",
]  # fmt: skip


def encodings(path: str) -> list[str]:
    """A path as it may stand in a URL: plain, encoded, encoded twice, oddly encoded."""
    once = urllib.parse.quote(path, safe="")
    return [
        urllib.parse.quote(path, safe="/\\.~:;"),
        once,
        once.replace(".", "%2e"),
        urllib.parse.quote(once, safe=""),
        path.encode().replace(b"../", b"%c0%ae%c0%ae%c0%af").decode("ascii", "ignore"),
    ]


@pytest.fixture
def outside(home, tmp_path):
    """A secret beside the workspace; afterwards it, and all around the store, is as it was."""
    home.mkdir(exist_ok=True)
    places = [tmp_path / "secret.txt", home / "secret.txt", home.parent.parent / "secret.txt"]
    for place in places:
        place.write_bytes(SECRET)

    def seen() -> dict[Path, bytes]:
        return {
            path: path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and not path.is_relative_to(home / "store")
            and not path.is_relative_to(home / "run")
        }  # fmt: skip

    before = seen()
    yield str(places[0])
    assert seen() == before
    places[2].unlink()
    stray = [path for path in (home / "store").rglob("*") if path.is_file()]
    for path in stray:
        assert path.parent.name == "blobs" or path.name.startswith("workspace.sqlite"), path
        assert path.parent.name != "blobs" or re.fullmatch("[0-9a-f]{32}", path.name), path


class Raw:
    """Sends paths as they are: requests would tidy them up."""

    def __init__(self, rest: Rest) -> None:
        host, port = rest.endpoint.url.removeprefix("https://").split(":")
        context = ssl.create_default_context(cafile=str(rest.endpoint.certificate))
        self._new = lambda: http.client.HTTPSConnection(
            host, int(port), timeout=10, context=context
        )
        self._headers = {"Authorization": f"Bearer {rest.endpoint.token}"}

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = self._new()
        connection._validate_path = lambda url: None  # what a browser would never send, too
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content


def test_path_traversal_in_a_url_reads_no_other_file(rest, outside, account):
    """Traversal in the URLs of artifacts, blobs, models, services and environments."""
    raw = Raw(rest)
    statuses: dict[int, int] = {}
    for upwards in UPWARDS:
        plain = upwards.format(secret=outside)
        for path in encodings(plain):
            signature = derive(rest.endpoint.token, f"read {plain}")
            for method, url in (
                ("GET", f"{ARTIFACTS}/contentinfo/LocalUpload/c/{path}"),
                ("GET", f"{ARTIFACTS}/prefix/contentinfo/LocalUpload/c/{path}"),
                ("GET", f"{ARTIFACTS}/prefix/contentinfo/{path}/c/x"),
                ("GET", f"/blobs/{path}?sig={signature}"),
                ("GET", f"{MMS}/models/{path}"),
                ("GET", f"{MMS}/assets/{path}"),
                ("GET", f"{MMS}/services/{path}/logs"),
                ("DELETE", f"{MMS}/services/{path}"),
                ("GET", f"{ENVIRONMENTS}/{path}"),
            ):
                status, content = raw.send(method, url)
                account.times += 1
                statuses[status] = statuses.get(status, 0) + 1
                if SECRET in content or (status >= 500 and status != 501):
                    account.lost.append(f"{method} {url}: {status}")
                if status == 200 and "prefix/contentinfo" in url and json.loads(content)["value"]:
                    account.lost.append(f"{method} {url}: {content!r}")
    account.found = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


def test_path_traversal_in_a_body_writes_no_other_file(rest, outside, account):
    """Traversal in artifact paths, asset ids, model, service and environment names of bodies."""
    raw = Raw(rest)
    for upwards in UPWARDS:
        path = upwards.format(secret=outside)
        named = {"name": path, "computeType": "ACI"}
        prefix = [{"prefix": f"LocalUpload/c/{path}"}, {"id": path}]
        for method, url, body in (
            ("POST", f"{MMS}/models", {"name": path, "url": f"aml://asset/{path}"}),
            ("POST", f"{MMS}/models", {"name": "fine", "url": path}),
            ("POST", f"{MMS}/assets", {"name": path, "artifacts": prefix}),
            ("POST", f"{MMS}/services", named),
            ("PUT", f"{ENVIRONMENTS}/{urllib.parse.quote(path, safe='')}", {"name": path}),
        ):
            status, content = raw.send(method, url, json.dumps(body).encode())
            account.times += 1
            if not (400 <= status < 500 or status == 501) or SECRET in content:
                account.lost.append(f"{method} {url} {body}: {status} {content!r}")
        status, content = raw.send(
            "POST",
            f"{ARTIFACTS}/batch/metadata/LocalUpload/{urllib.parse.quote(path, safe='')}",
            json.dumps({"paths": [{"path": path}]}).encode(),
        )
        account.times += 1
        if status == 200:  # a name that is odd, but leads nowhere: its blob has another
            [described] = json.loads(content)["artifactContentInformation"].values()
            uri = described["contentUri"].replace("local.blob.@", "")
            assert re.search(r"/blobs/[\w=-]+\?sig=[0-9a-f]{64}$", uri)
            rest.call("PUT", uri, data=b"mine")
    assert rest.models() == {}
    account.found = "rejected, or stored under a name of the store's own"


@pytest.mark.parametrize("strict", [False, True])
def test_certificate_signed_with_the_loopback_key_is_rejected(tmp_path, account, strict):
    """Certificates for other hosts, signed with the key of the loopback's."""
    create_server_context(tmp_path)
    client = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    if strict:  # as Python 3.13 is
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    for host in ("management.azure.com", "login.microsoftonline.com", "pypi.org", "localhost"):
        if is_trusted(make_forged_context(tmp_path, host), client, host):
            account.lost.append(host)
        account.times += 1
    account.found = "all rejected by clients that trust the bundle"


def evil_archives(secret: str) -> dict[str, bytes]:
    """Tar files whose members lead out of their folder, by name or by link."""
    archives = {}
    paths = [upwards.format(secret=secret).replace("\0", "") for upwards in UPWARDS]
    for number, path in enumerate(paths + [f"src/{path}" for path in paths]):
        for kind, link in (
            (tarfile.REGTYPE, ""),
            (tarfile.SYMTYPE, path),
            (tarfile.LNKTYPE, path),
        ):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
                for name in ("src/score.py", "src/link" if link else path, "src/link/secret.txt"):
                    member = tarfile.TarInfo(name)
                    if name == "src/link":
                        member.type, member.linkname = kind, link
                        tar.addfile(member)
                    else:
                        script = b"def init(): pass\ndef run(raw): pass\n"
                        member.size = len(script)
                        tar.addfile(member, io.BytesIO(script))
            archives[f"{number} {kind!r} {path}"] = buffer.getvalue()
    return archives


def test_path_traversal_in_an_archive_writes_no_other_file(rest, outside, home, tmp_path, account):
    """Traversal by members of the tar files that bring scripts."""
    store = Store(tmp_path / "a-store")
    rejected = 0
    for name, content in evil_archives(outside).items():
        artifact = f"LocalUpload/c/{account.times}.tar.gz"
        store.write(artifact, [content])
        container_spec = ContainerSpec("score.py", (Upload(artifact, "a", unpack=True),))
        containers = tmp_path / "some" / "containers"
        containers.mkdir(parents=True, exist_ok=True)
        before = set(tmp_path.rglob("*"))
        try:
            folder = build_folder(containers, store, container_spec)
        except Fault:
            rejected += 1
        else:
            account.lost += [f"{name}: a link" for p in folder.rglob("*") if p.is_symlink()]
            account.lost += [
                f"{name}: {path}"
                for path in set(tmp_path.rglob("*")) - before
                if not path.is_relative_to(containers)
            ]
            account.lost += [
                f"{name}: read"
                for path in folder.rglob("*")
                if path.is_file() and SECRET in path.read_bytes()
            ]
        account.times += 1
    store.close()
    for folder in ("a-store", "some"):
        shutil.rmtree(tmp_path / folder)
    account.found = f"{rejected} rejected, the others unpacked into their folder"
