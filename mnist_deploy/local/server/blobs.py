"""Blob storage: the clients of both SDKs upload and download bytes at signed URLs.

A signature permits reading or writing one artifact, or both for all artifacts of an upload.
"""

from __future__ import annotations

import hmac
import io
import xml.etree.ElementTree as ElementTree
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from flask import Blueprint, Response, request, send_file

from ..core.artifacts import Artifact, upload_of
from ..core.faults import Denied, Fault, Full, Invalid, NotFound, NotSupported
from ..core.runs import is_growing_log
from ..rest import STATUSES, endpoints, state, store
from ..tokens import derive

METADATA_PREFIX = "x-ms-meta-"  # of the names of headers that hold metadata
# The codes of blob storage; it rejects a signature by 403.
CODES: dict[type[Fault], str] = {
    Denied: "AuthenticationFailed",
    Full: "InsufficientStorage",
    NotFound: "BlobNotFound",
    Invalid: "InvalidInput",
    NotSupported: "NotImplemented",
}

blob_api = Blueprint("blobs", __name__)


def check_signature(*rights: str) -> None:
    """Reject a request whose URL was not signed for one of `rights`."""
    if not is_signature(request.args.get("sig", ""), state().token, *rights):
        raise Denied(
            "address", "This workspace has not signed the URL for this call: request a new URL."
        )


def is_signature(offered: str, token: str, *rights: str) -> bool:
    expected = [derive(token, each).encode() for each in rights]
    # All signatures are compared, so that the duration does not depend on which one matches.
    return any([hmac.compare_digest(offered.encode(), each) for each in expected])


def is_signed(token: str, path: str, query: str) -> bool:
    """Whether a URL below ``/blobs/`` is signed for any right."""
    path, arguments = unquote(path), dict(parse_qsl(query))
    uploads = {upload_of(path or arguments.get("prefix", "")), ""}
    rights = [f"read {path}", f"write {path}", *(f"folder {upload}" for upload in uploads)]
    return is_signature(arguments.get("sig", ""), token, *rights)


@blob_api.get("/blobs")
def list_blobs() -> Response:
    """List all blobs at a prefix and below it; a requested delimiter is ignored."""
    prefix = request.args.get("prefix", "")
    check_signature("folder ", f"folder {upload_of(prefix)}")
    listing = ElementTree.Element("EnumerationResults")
    blobs = ElementTree.SubElement(listing, "Blobs")
    for artifact in store().artifacts(prefix):
        blob = ElementTree.SubElement(blobs, "Blob")
        ElementTree.SubElement(blob, "Name").text = artifact.path
        add_fields(blob, "Properties", blob_headers(artifact) | {"BlobType": "BlockBlob"})
        add_fields(blob, "Metadata", artifact.metadata)
    ElementTree.SubElement(listing, "NextMarker")
    return xml(listing)


@blob_api.route("/blobs/<path:artifact>", methods=["GET", "PUT"])
def access_named_blob(artifact: str) -> Response:
    """Read or write an artifact by its path: SDK v2 composes the URL."""
    check_signature("folder ", f"folder {upload_of(artifact)}")
    return write(artifact) if request.method == "PUT" else read(artifact)


@blob_api.route("/blobs/<blob>", methods=["GET", "PUT"])
def access_coded_blob(blob: str) -> Response:
    """Read or write an artifact by its path in base64: SDK v1 uses the URL as it was sent."""
    right = "write" if request.method in ("PUT", "HEAD") else "read"
    check_signature(f"{right} {blob}")
    try:
        path = urlsafe_b64decode(blob).decode()
    except ValueError as error:
        raise NotFound("blob", blob) from error
    return write(path) if request.method == "PUT" else read(path)


def read(path: str) -> Response:
    found = store().artifact(path)
    if found is None or not found.file.exists():
        raise NotFound("blob", path)
    if request.method == "HEAD":  # the SDK does not upload an existing blob again
        store().touch(path)
    if "x-ms-range" in request.headers:
        request.environ["HTTP_RANGE"] = request.headers["x-ms-range"]
        if not found.file.stat().st_size:  # werkzeug would answer 206 without content
            return error_response(416, "InvalidRange", "The blob is empty.")
    content = whole_lines(found.file) if is_growing_log(path) else found.file
    answer = send_file(content, "application/octet-stream", etag=False, conditional=True)
    return with_headers(answer, found)


def whole_lines(log: Path) -> io.BytesIO:
    """The content of a log up to its last whole line, which does not grow while it is sent."""
    content = log.read_bytes()
    return io.BytesIO(content[: content.rfind(b"\n") + 1])


def write(path: str) -> Response:
    endpoints().runtime.warm_up()  # a deployment often follows an upload
    kind = request.args.get("comp")
    metadata = {
        name[len(METADATA_PREFIX) :].lower(): value
        for name, value in request.headers
        if name.lower().startswith(METADATA_PREFIX)
    }
    if kind == "block":
        store().stage(path, request.args.get("blockid", ""), chunks())
        return Response(status=201)
    if kind == "blocklist":
        try:
            blocks = [entry.text or "" for entry in ElementTree.fromstring(request.get_data())]
        except ElementTree.ParseError as error:
            raise Invalid(
                "block list", f"The body is not a list of blocks in XML: {error}"
            ) from error
        return with_headers(Response(status=201), store().commit(path, blocks, metadata))
    if kind == "appendblock":
        answer = Response(status=201)
        answer.headers["x-ms-blob-append-offset"] = str(store().append(path, chunks()))
        answer.headers["x-ms-blob-committed-block-count"] = "1"
        return answer
    if kind == "metadata":
        return with_headers(Response(status=200), store().annotate(path, metadata))
    if kind is not None:
        raise NotSupported(f"the blob storage call comp={kind}")
    return with_headers(Response(status=201), store().write(path, chunks(), metadata))


def chunks() -> Iterator[bytes]:
    return iter(lambda: request.stream.read(1 << 20), b"")


def blob_headers(artifact: Artifact) -> dict[str, str]:
    status = artifact.file.stat()
    return {
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Etag": f'"{artifact.file.name}"',
        "Content-Length": str(status.st_size),
    }


def with_headers(answer: Response, artifact: Artifact) -> Response:
    known = blob_headers(artifact)
    answer.headers |= {"Last-Modified": known["Last-Modified"], "ETag": known["Etag"]}
    answer.headers |= {"x-ms-blob-type": "BlockBlob"}
    answer.headers |= {METADATA_PREFIX + name: value for name, value in artifact.metadata.items()}
    return answer


@blob_api.errorhandler(Fault)
def blob_error_response(fault: Fault) -> Response:
    status = 403 if isinstance(fault, Denied) else STATUSES[type(fault)]
    return error_response(status, CODES[type(fault)], str(fault))


def error_response(status: int, code: str, message: str) -> Response:
    error = ElementTree.Element("Error")
    add_fields(error, None, {"Code": code, "Message": message})
    answer = xml(error)
    answer.status_code = status
    answer.headers["x-ms-error-code"] = code
    return answer


def add_fields(parent: ElementTree.Element, name: str | None, fields: dict[str, str]) -> None:
    inner = ElementTree.SubElement(parent, name) if name else parent
    for field, value in fields.items():
        ElementTree.SubElement(inner, field).text = value


def xml(element: ElementTree.Element) -> Response:
    return Response(
        ElementTree.tostring(element, "utf-8", xml_declaration=True), mimetype="application/xml"
    )
