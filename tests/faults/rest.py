"""The requests that the SDK sends, without its retries: for tests whose control plane may end."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence

import requests
from weights_service import WORKSPACE

from mnist_deploy.local.discovery import ControlPlaneAddress

MMS = f"/modelmanagement/v1.0{WORKSPACE}"
ARTIFACTS = f"/artifact/v2.0{WORKSPACE}/artifacts"


class Rest:
    """A client of one control plane."""

    def __init__(self, endpoint: ControlPlaneAddress) -> None:
        self.endpoint = endpoint
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(endpoint.certificate)
        self._session.headers["Authorization"] = f"Bearer {endpoint.token}"

    def call(self, method: str, path: str, **arguments) -> requests.Response:
        url = path if path.startswith("https://") else self.endpoint.url + path
        answer = self._session.request(method, url, timeout=30, **arguments)
        answer.raise_for_status()
        return answer

    def upload(self, content: bytes, name: str = "model.bin") -> str:
        """Upload a file under a new container; its artifact id."""
        container = f"LocalUpload/{uuid.uuid4().hex}"
        described = self.call(
            "POST", f"{ARTIFACTS}/batch/metadata/{container}", json={"paths": [{"path": name}]}
        ).json()
        uri = described["artifactContentInformation"][name]["contentUri"]
        self.call("PUT", uri.replace("local.blob.@", ""), data=content)
        return f"{container}/{name}"

    def register(self, name: str, content: bytes) -> str:
        """Register a model of one file; ``name:version``."""
        artifact = self.upload(content)
        asset = self.call(
            "POST", f"{MMS}/assets", json={"name": name, "artifacts": [{"prefix": artifact}]}
        ).json()
        model = {
            "name": name,
            "url": f"aml://asset/{asset['id']}",
            "properties": {"sha256": hashlib.sha256(content).hexdigest()},
        }
        return self.call("POST", f"{MMS}/models", json=model).json()["id"]

    def models(self) -> dict[str, dict]:
        """Every registered model by its ``name:version``."""
        found, skip = {}, None
        while True:
            page = self.call("GET", f"{MMS}/models", params={"$skipToken": skip} if skip else {})
            page = page.json()
            found |= {model["id"]: model for model in page["value"]}
            if "nextLink" not in page:
                return found
            skip = page["nextLink"].rpartition("skipToken=")[2]

    def content(self, model: dict) -> bytes | None:
        """The bytes of a model's only file; None if they are not there."""
        asset_id = model["url"].removeprefix("aml://asset/")
        [part] = self.call("GET", f"{MMS}/assets/{asset_id}").json()["artifacts"]
        files = self.call("GET", f"{ARTIFACTS}/prefix/contentinfo/{part['prefix']}").json()
        try:
            [file] = files["value"]
            return self.call("GET", file["contentUri"]).content
        except (ValueError, requests.HTTPError):
            return None

    def is_whole(self, model: dict) -> bool:
        content = self.content(model)
        wanted = model["properties"]["sha256"]
        return content is not None and hashlib.sha256(content).hexdigest() == wanted

    def delete_model(self, model_id: str) -> None:
        self.call("DELETE", f"{MMS}/models/{model_id}")

    def deploy(self, name: str, script: str, models: Sequence[str] = (), **more) -> str:
        """Start the deployment of a service; its operation."""
        artifact = self.upload(script.encode(), "score.py")
        container_spec = {
            "driverProgram": "score.py",
            "assets": [{"id": "score.py", "url": f"aml://artifact/{artifact}"}],
            "modelIds": list(models),
            "environment": {"name": "plain", "python": {"userManagedDependencies": True}},
        }
        payload = {
            "name": name,
            "computeType": "ACI",
            "environmentImageRequest": container_spec,
            **more,
        }
        answer = self.call("POST", f"{MMS}/services", json=payload)
        return answer.headers["Operation-Location"].rpartition("/")[2]

    def wait(self, operation: str, seconds: float = 60) -> dict:
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            state = self.call("GET", f"{MMS}/operations/{operation}").json()
            if state["state"] != "Running":
                return state
        raise TimeoutError(operation)

    def delete_service(self, name: str) -> None:
        self.call("DELETE", f"{MMS}/services/{name}")
