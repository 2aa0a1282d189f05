"""Generated requests get no server error, and leave no record that later requests fail on."""

from __future__ import annotations

import pytest
from generated_requests import Sender, app_to_try, engine_to_try, portal_to_try


@pytest.mark.parametrize("serve", [app_to_try, engine_to_try, portal_to_try])
def test_generated_requests_get_no_server_error(tmp_path, serve):
    """A share of what ``pytest -m faults`` sends."""
    with serve(tmp_path) as app:
        sender = Sender(app, 1)
        sender.run(4)
    assert sender.sent() > 100
    assert not sender.broken, "\n".join(f"{k}\n    {v}" for k, v in sender.broken.items())


def test_generated_requests_reach_batch_jobs_and_containers(tmp_path):
    """Each valid request succeeds once, so that an altered one differs in one thing."""
    with app_to_try(tmp_path) as app:
        sender = Sender(app, 1)
    statuses = {rule: counts for rule, counts in sender.answers.items() if "batchEndpoints" in rule}
    assert {max(counts) for rule, counts in statuses.items() if rule.startswith("PUT")} == {201}
    [jobs] = [counts for rule, counts in statuses.items() if rule.startswith("POST")]
    assert jobs[201] == 1
    with engine_to_try(tmp_path / "engine") as app:
        sender = Sender(app, 1)
    assert sender.answers["POST /containers/create"][201] == 1
