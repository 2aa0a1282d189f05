"""A service in a mocked workspace: how it comes to be, and how it describes itself."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

Document = dict[str, Any]

SCORING_HOST = ".services.mocked.invalid"  # no name server knows .invalid


@dataclass(frozen=True)
class Plan:
    """How a deployment is to turn out."""

    init_error: str | None = None
    finishes: bool = True


class MockedService:
    """What was asked for, what became of it, its keys and its log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys = {"primaryKey": new_key(), "secondaryKey": new_key()}
        self.created = now()
        self.lines: list[str] = []

    def deploy(self, asked: Document, models: list[Document], plan: Plan) -> None:
        """Begin to become what is asked for."""
        self.asked, self.models, self.plan = asked, models, plan
        self.keys |= {name: key for name, key in (asked.get("keys") or {}).items() if key}
        self.updated = now()
        self.state = "Transitioning"
        self.log(f"the container of {self.name} starts")

    def get_on(self) -> None:
        """Settle, unless this deployment is to last for ever."""
        if self.state == "Transitioning" and self.plan.finishes:
            self.state = "Failed" if self.plan.init_error else "Healthy"
            self.log(self.plan.init_error or "init() returned")

    def log(self, text: str) -> None:
        self.lines += [f"{now()} mocked - {line}" for line in text.splitlines()]

    def describe(self) -> Document:
        """What the SDK's parser asks of Azure's answer."""
        asked = self.asked
        document: Document = {
            "id": self.name,
            "name": self.name,
            "description": asked.get("description") or "",
            "kvTags": asked.get("kvTags") or {},
            "properties": asked.get("properties") or {},
            "state": self.state,
            "createdTime": self.created,
            "updatedTime": self.updated,
            "createdBy": {"userName": "mocked user"},
            "computeType": "ACI",
            "containerResourceRequirements": asked["containerResourceRequirements"],
            "authEnabled": bool(asked.get("authEnabled")),
            "appInsightsEnabled": bool(asked.get("appInsightsEnabled")),
            "location": asked.get("location") or "mocked",
            "scoringUri": f"http://{self.name}{SCORING_HOST}/score",
            "publicIp": "",
            "publicFqdn": f"{self.name}{SCORING_HOST}",
            "cname": "",
            "sslEnabled": False,
            "sslCertificate": "",
            "sslKey": "",
            "environmentImageRequest": asked.get("environmentImageRequest"),
            "models": self.models,
        }
        return document | self._error()

    def describe_operation(self) -> Document:
        """The deployment as a long-running operation."""
        states = {"Transitioning": "Running", "Healthy": "Succeeded", "Failed": "Failed"}
        document: Document = {"id": self.name, "state": states[self.state]}
        return (
            document | {"operationDetails": {"subOperationType": "DeployService"}} | self._error()
        )

    def _error(self) -> Document:
        if self.state != "Failed":
            return {}
        message = f"The container of {self.name} did not start: init() raised."
        return {"error": {"code": "AciDeploymentFailed", "statusCode": 400, "message": message}}


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def new_key() -> str:
    return secrets.token_hex(16)
