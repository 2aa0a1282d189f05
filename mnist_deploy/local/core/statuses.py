"""The statuses that an endpoint answers with where its script did not."""

from __future__ import annotations

# Where no deployment serves: azure-ai-ml repeats a request four times that got 503.
UNAVAILABLE_STATUS = {"service": 503, "endpoint": 502}
MODEL_ERROR = 424  # of an online endpoint whose script answered with an error
