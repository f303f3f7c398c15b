"""What a user sees, over HTTP, with real servers behind."""

from __future__ import annotations

import httpx
from tests.support.waiting import final


async def test_a_job_is_submitted_run_and_completed(http: httpx.AsyncClient) -> None:
    answer = await http.post("/jobs", json={"type": "echo", "payload": {"a": [1, "ü"]}})
    assert answer.status_code == 201
    job = await final(http, answer.json()["id"])
    assert job["status"] == "completed"
    assert job["result"] == {"payload": {"a": [1, "ü"]}, "attempt": 1}
    assert [a["outcome"] for a in job["attempts"]] == ["completed"]
