"""One job's page: how far it is, its runs, and what can be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from jobflow.lifecycle import Job, Status
from jobflow.pool import Connection
from jobflow.web.dashboard.job import steps_of, story_of
from tests.support.pages import BROWSER, visit
from tests.support.rows import NOBODY, add_job, add_worker, ago, row_of, status_of
from tests.support.waiting import final

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PATH = "/dashboard/jobs"


def make_job(status: Status, **changes: Any) -> Job:
    usual: dict[str, Any] = {
        "id": uuid4(), "type": "t", "status": status, "queue": "q", "priority": 5, "payload": msgspec.Raw(b"{}"),
        "attempt": 2, "max_attempts": 5, "run_at": NOW, "timeout": 1.0, "created_at": NOW, "updated_at": NOW,
        "started_at": NOW, "finished_at": NOW,
    }  # fmt: skip
    return Job(**usual | changes)


@pytest.mark.parametrize("status", Status)
def test_every_state_has_its_place_and_its_sentence(status: Status) -> None:
    job = make_job(status)
    steps = steps_of(job)
    assert [step.now for step in steps].count(True) == 1
    assert steps[0].done
    assert story_of(job, NOW)


def test_sentences_tell_what_comes_next() -> None:
    later = NOW + timedelta(minutes=5)
    assert story_of(make_job(Status.SCHEDULED, run_at=later), NOW).replace("\u00a0", " ") == "Runs in 5 m."
    assert "time has come" in story_of(make_job(Status.SCHEDULED), NOW)
    assert "runs again in 5 m; 3 of 5 attempts are left" in story_of(
        make_job(Status.FAILED, run_at=later), NOW
    ).replace("\u00a0", " ")
    assert "as soon as a worker is free" in story_of(make_job(Status.FAILED), NOW)
    assert story_of(make_job(Status.CANCELLED, cancel_reason="rain"), NOW) == "Stopped on purpose: rain."


async def test_a_finished_job_shows_what_went_in_and_came_out(http: httpx.AsyncClient) -> None:
    made = (await http.post("/jobs", json={"type": "echo", "payload": {"n": 12345678901}, "tags": ["red"]})).json()
    await final(http, made["id"])
    page = await visit(http, f"/jobs/{made['id']}")  # the API sends browsers to the page
    assert page.path == f"{PATH}/{made['id']}"
    assert "echo" in page.text
    assert "Run 1 completed" in page.text
    assert '"n": 12345678901' in page.text
    assert "Result" in page.text
    assert f"{PATH}?tag=red" in page.links


async def test_failures_are_told_run_by_run(http: httpx.AsyncClient) -> None:
    made = (await http.post("/jobs", json={"type": "fail", "payload": {"message": "no <luck>"}})).json()
    await final(http, made["id"])
    page = await visit(http, f"{PATH}/{made['id']}")
    assert page.text.count("Traceback") >= 3
    assert "Run 3 exhausted" in page.text
    assert "Run 1 errored" in page.text
    assert "no <luck>" in page.text
    assert page.tags.count("details") == 3
    assert "Failed for good" in page.text


async def test_a_long_history_and_a_long_payload_are_cut(http: httpx.AsyncClient, database: Connection) -> None:
    payload = msgspec.json.encode({"text": "x" * 100_000}).decode()
    id = await add_job(database, "dead_letter", payload=payload)
    await database.execute(
        "INSERT INTO job_attempts (job_id, run_epoch, attempt, worker, started_at, finished_at, outcome) "
        "SELECT $1, n, 1, $2, now(), now(), 'snoozed' FROM generate_series(1, 90) AS n",
        *(id, NOBODY),
    )
    page = await visit(http, f"{PATH}/{id}")
    assert "the last 30 of 90" in page.text
    assert "Run 90 snoozed" in page.text
    assert len(page.answer.content) < 60_000
    assert "Cut here" in page.text

    whole = await http.get(f"{PATH}/{id}/payload", headers=BROWSER)
    assert whole.headers["content-type"] == "application/json"
    assert whole.headers["content-security-policy"].startswith("default-src 'none'")
    assert whole.json() == {"text": "x" * 100_000}
    assert (await visit(http, f"{PATH}/{id}/result")).status == 404
    assert (await visit(http, f"{PATH}/{id}/nonsense")).status == 404


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("retry", "scheduled", None), ("cancel", "failed", "cancelled"), ("discard", "cancelled", "dead_letter")],
)
async def test_buttons_act_and_say_so(
    http: httpx.AsyncClient, database: Connection, action: str, before: str, after: str | None
) -> None:
    id = await add_job(database, before, run_at=ago(-1000))
    page = await (await visit(http, f"{PATH}/{id}")).submit(f"{PATH}/{id}/{action}")
    assert page.path == f"{PATH}/{id}"
    assert f"{action.title()}: done." in page.text
    status = await status_of(database, id)
    assert status == after if after else status != before


async def test_a_running_job_is_asked_to_stop_once(http: httpx.AsyncClient, database: Connection) -> None:
    id = await add_job(database, "processing", locked_by=await add_worker(database))
    page = await (await visit(http, f"{PATH}/{id}")).submit(f"{PATH}/{id}/cancel")
    assert "Cancel: its handler was asked to stop." in page.text
    assert "is running. It was asked to stop." in page.text
    assert (await row_of(database, id) or {})["cancel_requested_at"] is not None
    assert await status_of(database, id) == "processing"
    assert f"{PATH}/{id}/cancel" not in page.answer.text


async def test_delete_asks_first_and_leaves_to_the_list(http: httpx.AsyncClient, database: Connection) -> None:
    id = await add_job(database, "dead_letter")
    asked = await (await visit(http, f"{PATH}/{id}")).submit(f"{PATH}/{id}/delete")
    assert "Delete this job?" in asked.text
    assert f"{PATH}/{id}" in asked.links
    assert await status_of(database, id)

    done = await asked.submit(f"{PATH}/{id}/delete")
    assert done.path == PATH
    assert f"Job {id} is deleted." in done.text
    assert await status_of(database, id) is None


async def test_a_late_click_is_told_what_the_job_is_now(http: httpx.AsyncClient, database: Connection) -> None:
    id = await add_job(database, "scheduled", run_at=ago(-1000))
    page = await visit(http, f"{PATH}/{id}")
    await database.execute("UPDATE jobs SET status = 'dead_letter', finished_at = now() WHERE id = $1", id)
    late = await page.submit(f"{PATH}/{id}/cancel")
    assert late.status == 409
    assert "The job is dead_letter" in late.text


async def test_htmx_gets_the_job_again_with_the_notice(http: httpx.AsyncClient, database: Connection) -> None:
    id = await add_job(database, "dead_letter")
    page = await visit(http, f"{PATH}/{id}")
    part = BROWSER | {
        "hx-request": "true",
        "hx-request-type": "partial",
        "content-type": "application/x-www-form-urlencoded",
    }
    token = dict(page.fields(f"{PATH}/{id}/retry"))["csrf"]
    answer = await http.post(f"{PATH}/{id}/retry", content=f"csrf={token}", headers=part, follow_redirects=True)
    assert "<html" not in answer.text
    assert '<hx-partial hx-target="#notice"' in answer.text
    assert "Retry: done." in answer.text

    id = await add_job(database, "dead_letter")
    gone = await http.post(f"{PATH}/{id}/delete", content=f"csrf={token}&confirmed=yes", headers=part)
    assert (gone.status_code, gone.headers["hx-redirect"]) == (200, PATH)
