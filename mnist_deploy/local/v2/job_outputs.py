"""The locations of job outputs, which azure-ai-ml requests before a download."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify
from msgspec import Struct

from ..bodies import body
from ..core.faults import NotFound
from ..core.runs import OUTPUT_ASSET_ID
from ..rest import WORKSPACE
from .datastores import path_uri
from .jobs import runs

job_output_api = Blueprint("job_outputs", __name__)


class OutputRequest(Struct):
    values: list[str]


@job_output_api.post(f"/data/v1.0{WORKSPACE}/dataversion/batchGetResolvedUris")
def resolve_output_uris(**_: str) -> Response:
    """Return the URIs of outputs, whose ids are in the response to ``rundata``."""
    return jsonify(
        values={
            asset_id: {"uri": path_uri(find_output_path(asset_id)), "type": "uri_folder"}
            for asset_id in body(OutputRequest).values
        }
    )


def find_output_path(asset_id: str) -> str:
    """Return the path of an output's artifacts: a folder, or one file."""
    found = OUTPUT_ASSET_ID.fullmatch(asset_id)
    run = runs().find(found[1]) if found else None
    if found is None or run is None or run.job is None or found[2] not in run.job.outputs:
        raise NotFound("output", asset_id)
    files = run.other.get("v2", {}).get("output_files", {})
    return files.get(found[2]) or f"{run.job.outputs[found[2]]}/"
