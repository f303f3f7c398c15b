"""What a user sees, over HTTP, with real servers behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar

from jobflow.app import create_app
from jobflow.pool import Connection
from jobflow.settings import Settings
from tests.support.rows import add_worker, real_counts
from tests.support.waiting import FINAL, final, until


async def post(http: httpx.AsyncClient, type: str, payload: dict[str, Any] | None = None, **members: Any) -> str:
    answer = await http.post("/jobs", json={"type": type, "payload": payload or {}, **members})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def run(
    http: httpx.AsyncClient, type: str, payload: dict[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    return await final(http, await post(http, type, payload, **members))


async def get(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await http.get(f"/jobs/{id}")).json()
    return answer


async def becomes(http: httpx.AsyncClient, id: str, status: str, seconds: float = 20.0) -> dict[str, Any]:
    return await until(lambda: get(http, id), lambda job: job["status"] == status, seconds=seconds)


def outcomes(job: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in job["attempts"]]


def seconds(job: dict[str, Any], start: str, end: str) -> float:
    return (datetime.fromisoformat(job[end]) - datetime.fromisoformat(job[start])).total_seconds()


async def test_a_job_is_submitted_run_and_completed(http: httpx.AsyncClient) -> None:
    answer = await http.post("/jobs", json={"type": "echo", "payload": {"a": [1, "ü"]}})
    assert answer.status_code == 201
    job = await final(http, answer.json()["id"])
    assert job["status"] == "completed"
    assert job["result"] == {"payload": {"a": [1, "ü"]}, "attempt": 1}
    assert [a["outcome"] for a in job["attempts"]] == ["completed"]


# --- how a handler ends ---


async def test_a_typed_handler_with_its_own_defaults(http: httpx.AsyncClient) -> None:
    job = await run(http, "sum", {"a": 2, "b": 3})
    assert (job["status"], job["result"]) == ("completed", 5)
    assert (job["queue"], job["priority"], job["max_attempts"], job["timeout"]) == ("sums", 2, 3, 30)


async def test_a_job_without_a_result(http: httpx.AsyncClient) -> None:
    job = await run(http, "noop")
    assert (job["status"], job["result"], job["attempt"]) == ("completed", None, 1)
    assert job["worker"] is not None


async def test_failures_are_retried_with_backoff_then_dead_and_a_person_starts_it_over(http: httpx.AsyncClient) -> None:
    job = await run(http, "fail", {"message": "broken"})
    assert (job["status"], job["attempt"], outcomes(job)) == ("dead_letter", 3, ["errored", "errored", "exhausted"])
    assert job["error"] == {"type": "ValueError", "message": "broken"}
    assert "raise ValueError" in job["attempts"][0]["traceback"]
    gaps = [
        seconds({"a": first["finished_at"], "b": second["started_at"]}, "a", "b")
        for first, second in zip(job["attempts"], job["attempts"][1:], strict=False)
    ]
    assert all(0.05 <= gap < 1.9 for gap in gaps), gaps  # its own backoff, not the usual one of 2 s
    assert (await http.post(f"/jobs/{job['id']}/retry")).status_code == 200
    again = await until(
        lambda: get(http, job["id"]), lambda j: j["status"] == "dead_letter" and len(j["attempts"]) == 6
    )
    assert [a["number"] for a in again["attempts"]] == [1, 2, 3, 4, 5, 6]
    assert (
        [a["attempt"] for a in again["attempts"]] == [1, 2, 3, 1, 2, 3] if "attempt" in again["attempts"][0] else True
    )


async def test_a_retry_that_helps(http: httpx.AsyncClient) -> None:
    job = await run(http, "fail.once")
    assert (job["status"], job["result"], outcomes(job)) == ("completed", 2, ["errored", "completed"])


async def test_a_job_that_waits_for_its_retry_can_be_run_now(http: httpx.AsyncClient) -> None:
    id = await post(http, "fail.later")
    job = await becomes(http, id, "failed")
    assert 3_500 < (datetime.fromisoformat(job["run_at"]) - datetime.now(UTC)).total_seconds() <= 3_600
    assert (await http.post(f"/jobs/{id}/retry")).status_code == 200
    again = await until(lambda: get(http, id), lambda j: j["status"] == "failed" and j["attempt"] == 2)
    assert outcomes(again) == ["errored", "errored"]


async def test_a_timeout(http: httpx.AsyncClient) -> None:
    job = await run(http, "hang")
    assert (job["status"], job["error"]["type"]) == ("dead_letter", "Timeout")
    assert 0.3 <= seconds(job["attempts"][0], "started_at", "finished_at") < 10  # how exactly: tests/engine


async def test_a_handler_in_a_thread(http: httpx.AsyncClient) -> None:
    job = await run(http, "sleep.thread", {"seconds": 0.05})
    assert (job["status"], job["result"]) == ("completed", "slept")
    late = await run(http, "sleep.thread", {"seconds": 2.0}, timeout=0.2, max_attempts=1)
    assert (late["status"], late["error"]["type"]) == ("dead_letter", "Timeout")


async def test_a_snooze_uses_up_no_attempt(http: httpx.AsyncClient, tmp_path: Path) -> None:
    job = await run(http, "snooze", {"path": str(tmp_path / "seen"), "seconds": 0.2})
    assert (job["status"], job["attempt"], outcomes(job)) == ("completed", 1, ["snoozed", "completed"])


async def test_a_handler_cancels_its_job(http: httpx.AsyncClient) -> None:
    job = await run(http, "cancel")
    assert (job["status"], job["cancel_reason"]) == ("cancelled", "not needed any more")


async def test_a_handler_discards_its_job(http: httpx.AsyncClient) -> None:
    job = await run(http, "discard")
    assert (job["status"], job["attempt"], job["error"]) == (
        "dead_letter",
        1,
        {"type": "Discard", "message": "of no use"},
    )


async def test_a_handler_enqueues_another_job(http: httpx.AsyncClient) -> None:
    parent = await run(http, "spawn")
    child = await final(http, parent["result"])
    assert child["result"]["payload"] == {"from": parent["id"]}


async def test_what_a_handler_does_is_done_once(http: httpx.AsyncClient, tmp_path: Path) -> None:
    ids = [await post(http, "record", {"path": str(tmp_path / "record"), "seconds": 0.01}) for _ in range(20)]
    for id in ids:
        assert (await final(http, id))["status"] == "completed"
    lines = Counter((tmp_path / "record").read_text().splitlines())
    assert lines == Counter([f"{word} {id} 1" for id in ids for word in ("begin", "end")])


# --- types nobody handles ---


async def test_a_type_nobody_handles_fails_and_ends_in_the_dead_letter_queue(
    http: httpx.AsyncClient, database: Connection
) -> None:
    id = await post(http, "image.process", max_attempts=2)
    job = await becomes(http, id, "failed")
    assert (job["error"]["type"], job["attempt"]) == ("NoHandler", 1)
    assert (await http.post(f"/jobs/{id}/retry")).status_code == 200
    job = await becomes(http, id, "dead_letter")
    assert outcomes(job) == ["errored", "exhausted"]


async def test_a_type_that_another_process_handles_is_left_to_it(http: httpx.AsyncClient, database: Connection) -> None:
    await add_worker(database, types=["elsewhere"])
    id = await post(http, "elsewhere")

    async def epoch() -> int:
        return int(await database.fetchval("SELECT run_epoch FROM jobs WHERE id = $1", id))

    await until(epoch)
    job = await becomes(http, id, "scheduled")
    assert (job["attempt"], job["error"], job["attempts"]) == (0, None, [])


async def test_a_payload_that_no_longer_fits_its_type(one_slot: httpx.AsyncClient, database: Connection) -> None:
    await becomes(one_slot, first := await post(one_slot, "sleep", {"seconds": 60}), "processing")
    id = await post(one_slot, "sum", {"a": 1}, max_attempts=1)
    await database.execute("""UPDATE jobs SET payload = '{"a": 1, "b": -5}' WHERE id = $1""", id)
    await one_slot.post(f"/jobs/{first}/cancel")  # the slot is free now
    job = await becomes(one_slot, id, "dead_letter")
    assert job["error"]["type"] == "PayloadMismatch"
    assert "/payload/b" in job["error"]["message"]
    await database.execute("""UPDATE jobs SET payload = '{"a": 1, "b": 5}' WHERE id = $1""", id)
    assert (await one_slot.post(f"/jobs/{id}/retry")).status_code == 200, "after the type, or the payload, is mended"
    assert (await becomes(one_slot, id, "completed"))["result"] == 6


# --- when it runs ---


async def test_a_delay_is_kept(http: httpx.AsyncClient) -> None:
    delays = [1.0, 1.5, 2.0]
    ids = [await post(http, "noop", delay=delay) for delay in delays]
    assert (await get(http, ids[-1]))["status"] == "scheduled"
    jobs = [await final(http, id) for id in ids]
    late = [seconds(job, "created_at", "started_at") - delay for job, delay in zip(jobs, delays, strict=True)]
    assert min(late) >= 0
    assert median(late) < 0.5  # a machine that is busy holds one of them up


async def test_a_scheduled_job_can_be_run_now(http: httpx.AsyncClient) -> None:
    await run(http, "noop")  # its lane is open, so it knows the next one as due in an hour
    id = await post(http, "noop", delay=3_600)
    await asyncio.sleep(0.3)
    assert (await http.post(f"/jobs/{id}/retry")).status_code == 200
    assert (await final(http, id))["status"] == "completed"


async def test_run_at_is_kept_and_one_in_the_past_is_now(http: httpx.AsyncClient) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    past = datetime.now(UTC) - timedelta(days=1)
    later, now = await post(http, "noop", run_at=soon.isoformat()), await post(http, "noop", run_at=past.isoformat())
    job = await final(http, now)
    assert 0 <= seconds(job, "created_at", "started_at") < 10
    job = await final(http, later)
    assert 0 <= (datetime.fromisoformat(job["started_at"]) - soon).total_seconds() < 10


async def test_a_job_that_may_not_start_any_more_is_cancelled(http: httpx.AsyncClient, database: Connection) -> None:
    await database.execute("INSERT INTO queues (name, paused_at) VALUES ('stopped', now())")
    soon = datetime.now(UTC) + timedelta(seconds=2)
    job = await run(http, "noop", queue="stopped", expires_at=soon.isoformat())
    assert (job["status"], job["attempts"]) == ("cancelled", [])
    assert job["cancel_reason"].startswith("expired")


async def test_a_cancelled_job_never_starts(http: httpx.AsyncClient) -> None:
    id = await post(http, "noop", delay=1.5)
    answer = await http.post(f"/jobs/{id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    await asyncio.sleep(2.1)
    job = await get(http, id)
    assert (job["status"], job["attempts"], job["started_at"]) == ("cancelled", [], None)


@pytest.fixture
async def one_slot(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An application that runs one job at a time."""
    app = create_app(msgspec.structs.replace(settings, worker_concurrency=1))
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        yield http


async def test_priority_comes_before_age(one_slot: httpx.AsyncClient) -> None:
    first = await post(one_slot, "sleep", {"seconds": 60})
    await becomes(one_slot, first, "processing")
    ids = [await post(one_slot, "noop", priority=priority) for priority in (9, 5, 5, 1, 0)]
    await one_slot.post(f"/jobs/{first}/cancel")  # the slot is free now
    jobs = [await final(one_slot, id) for id in ids]
    order = sorted(range(5), key=lambda n: jobs[n]["started_at"])
    assert order == [4, 3, 1, 2, 0]


async def test_a_paused_queue_waits_and_others_go_on(
    http: httpx.AsyncClient, app: Litestar, database: Connection
) -> None:
    await database.execute("INSERT INTO queues (name, paused_at) VALUES ('stopped', now())")
    agenda = app.parts.engine._agenda  # type: ignore[attr-defined]

    async def known() -> bool:
        return agenda._queues.get("stopped") is True

    await until(known)
    waiting = await post(http, "noop", queue="stopped")
    assert (await run(http, "noop"))["status"] == "completed"
    assert (await get(http, waiting))["status"] == "pending"
    await database.execute("UPDATE queues SET paused_at = NULL")
    assert (await final(http, waiting))["status"] == "completed"


# --- many at once ---


async def test_fifty_requests_with_one_key_are_one_job(http: httpx.AsyncClient, database: Connection) -> None:
    async def one() -> httpx.Response:
        headers = {"Idempotency-Key": "unique-key-123"}
        return await http.post("/jobs", json={"type": "noop", "payload": {"n": 1}}, headers=headers)

    answers = await asyncio.gather(*(one() for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([a for a in answers if a.headers.get("Idempotency-Replayed") != "true"]) == 1
    await final(http, answers[0].json()["id"])
    assert await database.fetchval("SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM jobs_done)") == 1
    other = await http.post(
        "/jobs", json={"type": "noop", "payload": {"n": 2}}, headers={"Idempotency-Key": "unique-key-123"}
    )
    assert other.status_code == 422


async def test_at_rest_the_metrics_are_what_sql_counts(
    http: httpx.AsyncClient, database: Connection, tmp_path: Path
) -> None:
    kinds: list[dict[str, Any]] = [
        {"type": "noop"}, {"type": "fail"}, {"type": "fail.later"}, {"type": "discard"}, {"type": "cancel"},
        {"type": "fail.once"}, {"type": "noop", "delay": 3_600}, {"type": "sum", "payload": {"a": 1}},
        {"type": "snooze", "payload": {"path": str(tmp_path / "seen")}},
    ]  # fmt: skip
    answer = await http.post("/jobs/bulk", json={"jobs": kinds * 20})
    assert answer.status_code == 201
    ids = [job["id"] for job in answer.json()["jobs"]]
    assert (await http.delete(f"/jobs/{ids[0]}")).status_code in (204, 409)

    async def moving() -> int:
        later = "SELECT count(*) FROM jobs WHERE status IN ('pending', 'processing') OR (status <> ALL ($1) AND run_at < now() + interval '1 minute')"
        return int(await database.fetchval(later, sorted(FINAL)))

    await until(moving, lambda n: n == 0)
    await asyncio.sleep(1.1)  # what falls due is kept for a second
    shown = (await http.get("/metrics")).json()
    by_status: Counter[str] = Counter()
    for (_, status), n in (await real_counts(database)).items():
        by_status[status] += n
    assert {status: n for status, n in shown["by_status"].items() if n} == dict(by_status)
    assert by_status["failed"] == 20
    assert by_status["dead_letter"] == 40
    assert shown["total_jobs"] == sum(by_status.values())
    assert shown["completed_jobs"] == by_status["completed"]
    assert shown["failed_jobs"] == shown["retry_queue_length"] == 20
    assert shown["dead_letter_jobs"] == shown["dlq_length"] == 40
    assert shown["active_jobs"] == shown["queue_length"] == 0


async def test_a_thousand_jobs_at_once(http: httpx.AsyncClient, app: Litestar, database: Connection) -> None:
    answer = await http.post("/jobs/bulk", json={"jobs": [{"type": "noop", "payload": {"n": n}} for n in range(1_000)]})
    assert answer.status_code == 201

    async def done() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs_done WHERE attempt = 1"))

    await until(done, lambda n: n == 1_000)
    engine = app.parts.engine  # type: ignore[attr-defined]

    async def free() -> int:
        return int(engine._slots.free)

    await until(free, lambda n: n == 10)
