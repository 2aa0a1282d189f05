"""Generated requests for every route of an app: valid ones, and the same with one part replaced by
an unusual value.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import random
import uuid
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask
from tar_archives import archive
from werkzeug.routing import Rule

from mnist_deploy.local.core.endpoints import Endpoints
from mnist_deploy.local.core.job_engine import JobEngine
from mnist_deploy.local.core.local_containers import LocalContainers, LocalContainerSpec
from mnist_deploy.local.core.metrics import Metric
from mnist_deploy.local.core.process_runtime import ProcessRuntime
from mnist_deploy.local.core.profiles import Profiler
from mnist_deploy.local.core.records import Compute, Model, SavedDataset, now
from mnist_deploy.local.core.runs import LOG_FILE, Runs
from mnist_deploy.local.core.store import Store
from mnist_deploy.local.portal.page import create_app as create_portal
from mnist_deploy.local.portal.page_state import PageState
from mnist_deploy.local.rest import state_of
from mnist_deploy.local.server.app import create_app
from mnist_deploy.local.server.client_registrations import ClientRegistrations
from mnist_deploy.local.server.docker_api import create_unversioned_app
from mnist_deploy.local.tokens import derive

ODD = [None, True, 0, -1, 5, 1.5, 10**30, "", "x", "²", "9" * 30, "\0", "a/../b", "é" * 300, [],
       [5], [None], {}, {"a": 5}, {"a": {"b": [1]}}, [[]], "name:1", "LocalUpload/c/f"]  # fmt: skip
ODD_TEXTS = [
    "",
    "x",
    "²",
    "9" * 30,
    "-1",
    "1.5",
    "true",
    "null",
    "\0",
    "é",
    "a,b=c,=d",
    "%41",
    "..",
]
ODD_BODIES = [b"", b"{", b"[]", b"null", b"\xff", b'"text"', b"[" * 5000, b'{"a":1e999}', b"5",
              b'{"name":"\\ud800"}', b"<BlockList>", b"<a/>"]  # fmt: skip
LABELS = {"a": "b"}
ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
FILE_URI = "azureml://datastores/workspaceblobstore/paths/LocalUpload/c/f"
CODE_FILE = f"https://x/blobs/{b64encode(b'Code/c/s').decode()}?sig=s"
DATAFLOW = (
    "paths:\n- pattern: azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/"
    "workspaceblobstore/paths/d/*\n"
)
SAVED = str(uuid.uuid5(uuid.UUID(int=0), "saved"))  # a file data set, see `add_records`
TABLE = str(uuid.uuid5(uuid.UUID(int=0), "table"))
DATA_OUTPUT = {
    "mechanism": "upload",
    "outputLocation": {"dataPath": {
        "datastoreName": "workspaceblobstore", "relativePath": "o/{run-id}/{output-name}"}},
    "additionalOptions": {
        "pathOnCompute": "made", "uploadOptions": {
            "overwrite": True, "sourceGlobs": {"patterns": ["*.csv"]}},
        "mountOptions": {"disableMetadataCache": True},
        "registrationOptions": {
            "name": "r", "description": "d", "tags": {"a": "b"}, "properties": {},
            "datasetRegistrationOptions": {"additionalTransformation": "{}"}}},
}  # fmt: skip
SUBMISSION = {
    "SnapshotId": "s", "ParentRunId": None, "Configuration": {
        "script": "s", "framework": "Python", "target": "local", "communicator": "None",
        "arguments": ["--a", "DatasetConsumptionConfig:i", "DatasetOutputConfig:o", 1,
                      "$AZUREML_DATAREFERENCE_r"],
        "environment": {"python": {"condaDependencies": {"dependencies": ["a"]}},
                        "environmentVariables": {"A": "b"}},
        "maxRunDurationSeconds": 5, "nodeCount": 1, "priority": 1,
        "environmentVariables": {"B": "c"}, "mpi": {"processCountPerNode": 1},
        "data": {"i": {"dataLocation": {"dataset": {"id": SAVED}}, "mechanism": "mount",
                       "environmentVariableName": "i"}},
        "dataReferences": {"r": {"dataStoreName": "workspaceblobstore", "mode": "Mount",
                                 "pathOnDataStore": "d"}},
        "outputData": {"o": DATA_OUTPUT}}}  # fmt: skip
PATCH = [{"op": "replace", "path": "/kvTags/a", "value": "c"}]
# A valid body for each route that takes one; every other route is sent one of these.
BODIES: dict[str, Any] = {
    "/clients": {"pid": 2**30},
    "/subscriptions": {"subscriptionId": "s"},
    "/batch/metadata": {"paths": [{"path": "f"}]},
    "/assets": {"name": "m", "artifacts": [{"prefix": "LocalUpload/c/f"}]},
    "/models": {"name": "m", "url": "aml://asset/m:1", "kvTags": LABELS, "properties": LABELS,
                "datasets": [{"name": "d", "id": "i"}], "resourceRequirements": {"cpu": 1}},
    "/models/<model_id>": PATCH,
    "/images/<image_id>": PATCH,
    "/services/<name>": PATCH,
    "/environments/<name>": {"python": {"condaDependencies": {"dependencies": ["a", {"pip": []}]}},
                             "docker": {"baseImage": "b"}, "environmentVariables": LABELS},
    "/images": {"name": "i", "imageType": "Docker", "imageFlavor": "WebApiContainer",
                "driverProgram": "d", "targetRuntime": {"runtimeType": "Python", "properties": {}},
                "assets": [{"id": "d", "url": "aml://artifact/LocalUpload/c/f"}],
                "modelIds": ["m:1"], "kvTags": LABELS},
    "/services": {"name": "s", "computeType": "ACI", "overwrite": True, "kvTags": LABELS,
                  "containerResourceRequirements": {"cpu": 1, "memoryInGB": 1},
                  "properties": LABELS, "keys": {"primaryKey": "k"}, "authEnabled": True,
                  "environmentImageRequest": {
                      "driverProgram": "score.py", "modelIds": ["m:1"], "environment": {
                          "python": {"condaDependencies": {"dependencies": ["a"]}}},
                      "assets": [{"id": "score.py", "url": "aml://artifact/never/uploaded/x"}]}},
    "/packages": {"packageType": "DockerBuildContext", "imageRequest": {
        "driverProgram": "f", "assets": [{"id": "f", "url": "aml://artifact/LocalUpload/c/f"}],
        "modelIds": ["m:1"], "environment": {
            "name": "e", "version": "1", "environmentVariables": LABELS,
            "python": {"condaDependencies": {"dependencies": ["a", {"pip": ["b"]}]}}}}},
    "/regenerateKeys": {"keyType": "Primary", "keyValue": "k"},
    "/api/token": {"code": "c"},
    "/api/download": {"kind": "model", "name": "m", "version": "1"},
    "/api/run-download": {"id": "s", "name": "outputs/f"},
    "/api/log-download": {"kind": "service", "name": "s", "deployment": "s"},
    "/portal": {"folder": "/", "port": 0},
    # Experiments, runs and data of SDK v1
    "/experiments/<experiment>": {"description": "d"},
    "/experimentids/<experiment_id>": {"description": "d", "tags": LABELS, "archive": False},
    "/tags:delete": {"tags": ["a"]},
    "/experiments:query": {"filter": "(Name eq s)", "orderby": "CreatedUtc desc", "top": 5,
                           "continuationToken": "0", "viewType": "All"},
    "/runs/<run_id>": {
        "runId": "s", "displayName": "d", "description": "d", "scriptName": "t.py", "tags": LABELS,
        "properties": LABELS, "target": "local", "status": "Running",
        "inputDatasets": [{"identifier": {"savedId": "i"}, "consumptionType": "RunInput"}],
        "outputDatasets": [{"identifier": {"savedId": "i"}, "outputType": "RunOutput"}]},
    "/batch/runs": {"runs": [{"runId": "s", "tags": LABELS}]},
    "/rundata": {"runId": "s"},
    "/runs:query": {"filter": "(ParentRunId eq null) and (Status eq Running)",
                    "orderby": "StartTimeUtc desc", "top": 5, "continuationToken": "0"},
    "/events": {"name": "Microsoft.MachineLearning.Run.Warning",
                "data": {"RunId": "s", "Message": "m"}},
    "/batch/events": {"events": [{"name": "Microsoft.MachineLearning.Run.Error", "data": {
        "RunId": "s", "ErrorResponse": {"error": {"code": "c", "message": "m"}}}}]},
    "/runs/<run_id>/batch": {"values": [{
        "name": "m", "columns": {"m": "Double"},
        "properties": {"uxMetricType": "azureml.v1.scalar"},
        "value": [{"metricId": "i", "createdUtc": "2026-01-01", "step": 1, "data": {"m": 1.5}}]}]},
    "/runs/<run_id>/list": {"continuationToken": None},
    "/runs/<run_id>/full": {"metricName": "m"},
    "/snapshots/getblob": {"FileNames": ["t.py", "a/b.py"]},
    "/snapshots/<snapshot_id>": {
        "ParentSnapshotId": None,
        "DirTreeNode": {"name": "", "type": "Directory", "children": {
            "s": {"name": "s", "type": "File"},
            "a": {"name": "a", "type": "Directory", "children": {}}}},
        "FileRevisionList": {"FileNodes": [{"FullName": "s", "BlobUri": CODE_FILE}]}},
    "/saveddatasets": {"datasetType": "file", "properties": LABELS,
                       "dataflowJson": json.dumps({"meta": {"RsDataflow": DATAFLOW}})},
    "/datasets": {"name": "d", "datasetType": "file", "description": "d", "tags": LABELS,
                  "latest": {"dataflow": json.dumps({"meta": {"RsDataflow": DATAFLOW}}),
                             "properties": LABELS}},
    "/datasets/<dataset_id>": {"name": "d", "description": "d", "tags": LABELS},
    "/snapshotrun": SUBMISSION,
    "/localrun": SUBMISSION | {"SnapshotId": None},
    "/profiles": {"name": "p", "inputDatasetId": TABLE, "description": "d",
                  "containerResourceRequirements": {"cpu": 1, "memoryInGB": 1},
                  "environmentImageRequest": {
                      "driverProgram": "score.py", "modelIds": ["m:1"], "environment": {
                          "python": {"condaDependencies": {"dependencies": ["a"]}}},
                      "assets": [{"id": "score.py", "url": "aml://artifact/never/uploaded/x"}]}},
    # SDK v2's
    "/jobs/<name>": {"properties": {
        "jobType": "Command", "command": "echo ${{inputs.rate}} ${{inputs.data}}",
        "codeId": f"{ARM}/codes/s/versions/1", "environmentId": f"{ARM}/environments/e/versions/1",
        "environmentVariables": LABELS, "experimentName": "s", "displayName": "d", "tags": LABELS,
        "properties": LABELS, "description": "d", "limits": {"timeout": "PT5S"},
        "resources": {"instanceCount": 1}, "outputs": {"o": {"jobOutputType": "uri_folder"}},
        "inputs": {"rate": {"jobInputType": "literal", "value": 1},
                   "data": {"jobInputType": "uri_file", "mode": "Download", "uri": FILE_URI}}}},
    "/data/<name>/versions/<version>": {"properties": {
        "dataUri": FILE_URI, "dataType": "uri_file", "tags": LABELS, "properties": LABELS}},
    "/data/<name>": {"properties": {"isArchived": False}},
    "/models/<name>/versions/<version>": {"properties": {
        "modelUri": "azureml://datastores/workspaceblobstore/paths/LocalUpload/c/f", "tags": LABELS,
        "flavors": {"f": {"data": LABELS}}, "isArchived": False}},
    "/environments/<name>/versions/<version>": {"properties": {
        "image": "i", "condaFile": "dependencies: []", "tags": LABELS, "properties": LABELS}},
    "/codes/<name>/versions/<version>": {"properties": {
        "codeUri": "https://x/blobs/Code/c/code", "properties": {"hash_sha256": "h"}}},
    "/computes/<compute>": {"properties": {
        "computeType": "Kubernetes", "properties": {"namespace": "n"}}, "tags": LABELS},
    "/batchEndpoints/<endpoint>": {"tags": LABELS, "properties": {"authMode": "aadToken"}},
    "/batchEndpoints/<endpoint>/deployments/<deployment>": {"tags": LABELS, "properties": {
        "codeConfiguration": {"codeId": f"{ARM}/codes/s/versions/1", "scoringScript": "s.py"},
        "model": {"assetId": f"{ARM}/models/m/versions/1", "referenceType": "Id"},
        "environmentId": f"{ARM}/environments/s/versions/1",
        "compute": f"{ARM}/computes/batch-cluster",
        "miniBatchSize": 1, "errorThreshold": 1, "outputFileName": "a.csv",
        "environmentVariables": LABELS, "loggingLevel": "Info",
        "retrySettings": {"maxRetries": 1, "timeout": "PT30S"},
        "resources": {"instanceCount": 1}}},
    "/batchEndpoints/<endpoint>/jobs": {"properties": {
        "inputData": {"UriFile": {"jobInputType": "UriFile",
                                  "uri": "azureml://datastores/workspaceblobstore/paths/"
                                         "LocalUpload/c/f"}},
        "outputData": {"score": {"jobOutputType": "UriFolder", "mode": "Upload",
                                 "uri": "azureml://datastores/workspaceblobstore/paths/out/s"}},
        "compute": {"isLocal": True, "instanceCount": 1}, "retrySettings": {"maxRetries": 1},
        "miniBatchSize": 1, "outputFileName": "a.csv", "errorThreshold": 0}},
    "/dataversion/batchGetResolvedUris": {
        "values": ["azureml://locations/local/data/azureml_s_output_data_score/versions/1"]},
    "/onlineEndpoints/<endpoint>": {"tags": LABELS, "properties": {
        "authMode": "Key", "traffic": {}, "mirrorTraffic": {}, "properties": LABELS,
        "keys": {"primaryKey": "k"}}},
    "/deployments/<deployment>": {"sku": {"capacity": 1}, "tags": LABELS, "properties": {
        "endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2",
        "codeConfiguration": {"scoringScript": "s.py", "codeId": f"{ARM}/codes/s/versions/1"},
        "model": f"{ARM}/models/m/versions/1", "environmentVariables": LABELS,
        "environmentId": f"{ARM}/environments/s/versions/1",
        "requestSettings": {"requestTimeout": "PT5S", "maxConcurrentRequestsPerInstance": 1},
        "scaleSettings": {"scaleType": "TargetUtilization", "minInstances": 1},
        "containerResourceRequirements": {"containerResourceLimits": {"cpu": "1"}}}},
    "/getLogs": {"tail": 5, "containerType": "InferenceServer"},
    # The Docker Engine API's
    "/containers/create": {
        "Image": "s", "Env": ["A=b"], "Labels": {"a": "b"}, "Tty": True,
        "HostConfig": {"Binds": [], "PortBindings": {"5001/tcp": [{"HostPort": "0"}]},
                       "PublishAllPorts": True}},
    # MLflow's
    "/mlflow/experiments/create": {"name": "e", "tags": [{"key": "a", "value": "b"}]},
    "/mlflow/experiments/search": {"filter": "name = 'e'", "order_by": ["name DESC"],
                                   "max_results": 5, "page_token": "0"},
    "/mlflow/experiments/set-experiment-tag": {"experiment_id": "0", "key": "a", "value": "b"},
    "/mlflow/runs/create": {"experiment_id": "0", "run_name": "r", "start_time": 5,
                            "tags": [{"key": "a", "value": "b"}]},
    "/mlflow/runs/search": {"experiment_ids": ["0"], "filter": "metrics.m > 0 and tags.a = 'b'",
                            "order_by": ["metrics.m DESC", "start_time"], "max_results": 5},
    "/mlflow/runs/update": {"run_id": "s", "status": "RUNNING", "run_name": "r"},
    "/mlflow/runs/log-metric": {"run_id": "s", "key": "m", "value": 1, "timestamp": 5, "step": 1},
    "/mlflow/runs/log-parameter": {"run_id": "s", "key": "p", "value": "1"},
    "/mlflow/runs/set-tag": {"run_id": "s", "key": "a", "value": "b"},
    "/mlflow/runs/delete-tag": {"run_id": "s", "key": "a"},
    "/mlflow/runs/log-batch": {
        "run_id": "s", "metrics": [{"key": "m", "value": "NaN", "timestamp": 5}],
        "params": [{"key": "p", "value": "1"}], "tags": [{"key": "a", "value": "b"}]},
    "/mlflow/runs/log-inputs": {"run_id": "s", "datasets": [{"dataset": {"name": "d"}}]},
    "/mlflow/experiments/delete": {"experiment_id": "0"},
    "/mlflow/experiments/restore": {"experiment_id": "0"},
    "/mlflow/runs/log-batch-async": {
        "run_id": "s", "metrics": [{"key": "m", "value": 1, "timestamp": 5}]},
    "/mlflow/logged-models/<model_id>": {"status": "LOGGED_MODEL_READY"},
    "/mlflow/logged-models/<model_id>/tags": {"tags": [{"key": "a", "value": "b"}]},
    "/mlflow/logged-models/<model_id>/params": {"params": [{"key": "a", "value": "b"}]},
    "/mlflow/runs/outputs": {"run_id": "s", "models": [{"model_id": "m", "step": 0}]},
    "/mlflow/logged-models": {"experiment_id": "0", "source_run_id": "s", "name": "m"},
    "/mlflow/logged-models/search": {"experiment_ids": ["0"], "filter": "name = 'm'",
                                     "order_by": [{"field_name": "name", "ascending": False}]},
}  # fmt: skip
DELETED = ("name", "_id", "compute", "deployment", "endpoint")  # what a DELETE's path ends with
QUERIES = ("$filter", "$orderby", "$continuationToken", "runId", "ifExistsOk", "count", "orderBy",
           "versionId", "path", "kind", "deployment", "$skipToken", "tail", "offset", "tags",
           "properties", "name", "version",
           "latestVersionOnly", "framework", "computeType", "comp", "blockid", "sig", "prefix",
           "id", "start", "before", "text", "datasetId", "restype", "delimiter", "$skip", "$top",
           "resource", "all", "limit", "filters", "t", "dockerfile", "remote", "force", "follow",
           "fromImage")  # fmt: skip
VALUES = {"subscription": "s", "group": "g", "workspace": "w", "model_id": "m:1", "image_id": "i:1",
          "origin": "LocalUpload", "container": "c", "path": "f", "version": "1",
          "endpoint": "end-point", "deployment": "blue", "kind": "jobs",
          "blob": b64encode(b"LocalUpload/c/f").decode(), "asset_id": "m:1",
          "artifact": "LocalUpload/c/f",
          "dataset_id": str(uuid.uuid5(uuid.UUID(int=1), "d"))}  # fmt: skip


BOUNDARY = "generated"
DEFINITION = (  # of a run on the client's machine: a form with one file
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="definition.json"\r\n'
    f"\r\n%b\r\n--{BOUNDARY}--\r\n"
)


@contextlib.contextmanager
def app_to_try(folder: Path) -> Iterator[Flask]:
    """The control plane's HTTP surface without its process, with a model of one file."""
    store = Store(folder / "store")
    store.write("LocalUpload/c/f", [b"dependencies: []"])
    for path in ("Code/c/code/s", "Code/c/code/s/s.py"):  # of which no folder can be made
        store.write(path, [b""])
    store.add(Model("m", 0, ("LocalUpload/c/f",), now()))
    store.put(Compute("batch-cluster", "AmlCompute", now(),
                      settings={"scaleSettings": {"minNodeCount": 0}}))  # fmt: skip
    endpoints = Endpoints(store, ProcessRuntime(store, folder / "containers"))
    app = create_app(store, endpoints, ClientRegistrations(), "token", "127.0.0.1:1")
    state = state_of(app)
    jobs = state.add(JobEngine(state.part(Runs), folder / "jobs", reject_job, lambda run: {}))
    profiler = state.add(Profiler(store, endpoints, folder / "jobs", reject_job, {}))
    add_records(store, state.part(Runs))
    yield app
    jobs.stop()
    profiler.stop()
    endpoints.stop_all()
    store.close()


def add_records(store: Store, runs: Runs) -> None:
    """Add what the bodies of `BODIES` refer to."""
    for path in ("datastore/d/f", "Code/c/s"):
        store.write(path, [b""])
    dataflow = json.dumps({"meta": {"RsDataflow": DATAFLOW}})
    store.put(SavedDataset(SAVED, now(), "file", dataflow))
    store.put(SavedDataset(TABLE, now(), "tabular", dataflow))
    runs.create(runs.create_experiment("s"), "s")


@contextlib.contextmanager
def portal_to_try(folder: Path) -> Iterator[Flask]:
    """The portal's app, as a tab with a token reaches it, on the workspace of `app_to_try`."""
    with app_to_try(folder) as app:
        token = state_of(app).part(PageState).tokens.issue()
        runs = state_of(app).part(Runs)
        run = runs.get("s")
        runs.metrics.log(run.id, [Metric("m", {"m": "double"}, "scalar", ({"data": {"m": 1}},))])
        for name in (LOG_FILE, "outputs/f"):
            runs.store.write(f"{run.artifacts}/{name}", [b"line\n"])
        page = create_portal("localhost", dataclasses.replace(state_of(app), token=token))
        answer = page.wsgi_app
        page.wsgi_app = lambda environ, start: answer(
            environ | {"HTTP_ORIGIN": "http://localhost"}, start
        )
        yield page


@contextlib.contextmanager
def engine_to_try(folder: Path) -> Iterator[Flask]:
    """The Docker Engine API, with an image and a container that has no script to start."""
    containers = LocalContainers(folder / "local-containers")
    containers.build(io.BytesIO(archive({"Dockerfile": b"FROM x\n"})), "Dockerfile", "s")
    containers.create(LocalContainerSpec("s", "s"))
    with app_to_try(folder) as app:
        state = dataclasses.replace(state_of(app), local_containers=containers)
        yield create_unversioned_app(state)
    containers.close()


def reject_job(*_: Any) -> Any:
    raise OSError("No job starts a process here.")


class Sender:
    """Sends generated requests to an app, without a network.

    Attributes
    ----------
    answers : dict of str to Counter
        How often each method of each route gave each status.
    broken : dict of str to str
        Each answer of 500 and above but 501: the request, and how it ended.
    """

    def __init__(self, app: Flask, seed: int) -> None:
        self._random = random.Random(seed)
        self._client = app.test_client()
        self._token = state_of(app).token
        known = state_of(app).part(Runs).find_experiment("s")
        self._experiment_id = known.id if known else "s"
        self._routes = [
            (rule, method)
            for rule in app.url_map.iter_rules()
            for method in sorted((rule.methods or set()) - {"HEAD"})
        ]
        self.answers: dict[str, Counter] = defaultdict(Counter)
        self.broken: dict[str, str] = {}
        for name in BODIES:  # so that there is one of each
            for rule, method in self._routes:
                if str(rule).endswith(name) and method in ("POST", "PUT", "PATCH"):
                    self.send(rule, method)

    def sent(self) -> int:
        return sum(map(Counter.total, self.answers.values()))

    def run(self, times: int) -> None:
        """Send `times` odd requests to each method of each route, and look at all in between."""
        for _ in range(times):
            for rule, method in self._routes:
                self.spoil(rule, method)
            for rule, method in self._routes:
                if method == "GET":  # nothing that was sent may stick
                    self.send(rule, method, query={"tags": "a", "properties": "a", "id": "s"})

    def send(self, rule: Rule, method: str, body: bytes | None = None, odd: str = "",
             query: dict[str, str] | None = None) -> None:  # fmt: skip
        """Send a request, by default a valid one."""
        path = self.fill(rule, method, odd)
        # Of a submission, a new run each time; of a data set, a new version.
        query = {"runId": f"r{self.sent()}", "ifExistsOk": "True"} | (query or {})
        if path.startswith("/blobs"):
            right = f"{'write' if method == 'PUT' else 'read'} {VALUES['blob']}"
            right = right if "blob" in rule.arguments else "folder "
            query = {"sig": derive(self._token, right)} | query
        body = json.dumps(body_of(rule)).encode() if body is None else body
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json",
                   "azureml-model-deployment": VALUES["deployment"]}  # fmt: skip
        if path.endswith("/localrun"):
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
            body = DEFINITION.encode() % body
        with self._client.open(
            path, method=method, data=body, headers=headers, query_string=query
        ) as answer:
            self.answers[f"{method} {rule}"][answer.status_code] += 1
            # Docker's status of a container that cannot be started is 500.
            is_rejected_start = str(rule) == "/containers/<name>/start"
            if answer.status_code >= 500 and answer.status_code != 501 and not is_rejected_start:
                request = f"{method} {path} {query} {body[:300]!r}"
                self.broken[request] = answer.get_data(as_text=True)[:300]

    def spoil(self, rule: Rule, method: str) -> None:
        """Send a request in which one thing is odd."""
        draw = self._random.choice
        match self._random.randrange(8):
            case 0 if rule.arguments:
                self.send(rule, method, odd=draw(sorted(rule.arguments)))
            case 1:
                self.send(rule, method, draw(ODD_BODIES))
            case 2 | 3:
                self.send(rule, method, query={"id": "s"} | {draw(QUERIES): draw(ODD_TEXTS)})
            case 4:  # what belongs to another route
                self.send(rule, method, json.dumps(draw(list(BODIES.values()))).encode())
            case _:
                body = copy.deepcopy(body_of(rule))
                lock_owner, key = draw(list(places(body)))
                lock_owner[key] = draw(ODD)
                self.send(rule, method, json.dumps(body).encode())

    def fill(self, rule: Rule, method: str, odd: str) -> str:
        """The route's path with its variables filled in, that named `odd` with something odd."""
        path = str(rule)
        values = VALUES | {
            "secret": derive(self._token, path.split("/")[1]),
            "experiment_id": self._experiment_id,
        }
        for name in rule.arguments:
            value = values.get(name, "s")
            if name == odd:
                value = self._random.choice([text for text in ODD_TEXTS if text])
            elif method == "PUT" and path.endswith("/jobs/<name>"):
                value = f"job{self.sent()}"
            elif method == "DELETE" and name.endswith(DELETED):
                value = "gone:1"  # what is there stays for the others
            for form in (f"<{name}>", f"<path:{name}>"):
                path = path.replace(form, quote(value, safe=""))
        return path


def body_of(rule: Rule) -> Any:
    """The valid body for a route: of those whose name it ends with, or has, the longest."""
    path = str(rule)
    fitting = [name for name in BODIES if path.endswith(name)] or [n for n in BODIES if n in path]
    return BODIES[max(fitting, key=len)] if fitting else {"name": "x", "properties": LABELS}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value where another could stand."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)
