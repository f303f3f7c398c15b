"""/jobs over HTTP, against the running application."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.support.waiting import final

IN_A_YEAR = (datetime.now(timezone(timedelta(hours=2))) + timedelta(days=365)).isoformat()  # with another zone than UTC
LATER: dict[str, Any] = {"type": "noop", "delay": 3600}  # stays scheduled


async def submit(http: httpx.AsyncClient, **members: Any) -> dict[str, Any]:
    answer = await http.post("/jobs", json=LATER | members)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def without_attempts(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name != "attempts"}


async def test_a_2xx_means_a_committed_row(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    answer = await http.post("/jobs", json=LATER | {"payload": {"a": [1, "é"]}, "tags": ["t"], "priority": 0})
    job = answer.json()

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert UUID(job["id"]).version == 7
    row = await database.fetchrow("SELECT * FROM jobs WHERE id = $1", UUID(job["id"]))
    assert (row["type"], row["status"], row["priority"], row["tags"]) == ("noop", "scheduled", 0, ["t"])


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"payload": {"x": 1}, "queue": "other", "priority": 9, "max_attempts": 1, "timeout": 0.5, "tags": ["a", "b"]},
        {"unique_key": "k", "expires_at": "2099-01-01T00:00:00Z"},
        {"delay": None, "run_at": IN_A_YEAR},
    ],
)
async def test_the_answer_is_what_a_later_read_gives(http: httpx.AsyncClient, members: dict[str, Any]) -> None:
    submitted = await submit(http, **members)
    read = (await http.get(f"/jobs/{submitted['id']}")).json()

    assert read["attempts"] == []
    assert without_attempts(read) == submitted


async def test_a_job_that_is_due_at_once_says_so(http: httpx.AsyncClient) -> None:
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    for members in ({"delay": None}, {"delay": 0}, {"delay": None, "run_at": past}):
        job = await submit(http, **members)
        assert job["run_at"] == job["created_at"]
    assert (await submit(http, delay=None))["status"] == "pending"


async def test_a_submitted_job_runs_and_its_result_can_be_read(http: httpx.AsyncClient) -> None:
    job = (await http.post("/jobs", json={"type": "echo", "payload": {"a": 1}})).json()
    job = await final(http, job["id"])

    assert job["result"] == {"payload": {"a": 1}, "attempt": 1}
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["completed"]
    assert (await http.post(f"/jobs/{job['id']}/retry")).status_code == 409


# --- twice ---


async def test_the_same_key_is_carried_out_once(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    headers = {"idempotency-key": "unique-key-123"}
    first = await http.post("/jobs", json=LATER, headers=headers)
    second = await http.post(
        "/jobs", json=dict(reversed(LATER.items())), headers={"idempotency-key": '"unique-key-123"'}
    )
    other = await http.post("/jobs", json=LATER | {"priority": 1}, headers=headers)
    bulk = await http.post("/jobs/bulk", json={"jobs": [LATER]}, headers=headers)

    assert second.status_code == 201
    assert second.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert other.status_code == bulk.status_code == 422
    assert other.json()["type"] == "urn:jobflow:problem:idempotency-key-reused"
    assert await database.fetchval("SELECT count(*) FROM jobs") == 1


async def test_fifty_at_once_with_one_key_are_one_job(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(http.post("/jobs", json=LATER, headers={"idempotency-key": "k"}) for _ in range(50))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 49


async def test_a_refused_request_leaves_its_key_free(http: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k"}
    assert (await http.post("/jobs", json={"type": ""}, headers=headers)).status_code == 422
    assert (await http.post("/jobs", json=LATER, headers=headers)).status_code == 201


async def test_bulk_is_replayed_whole(http: httpx.AsyncClient) -> None:
    body = {"jobs": [LATER, LATER | {"queue": "other"}]}
    first, second = [await http.post("/jobs/bulk", json=body, headers={"idempotency-key": "k"}) for _ in range(2)]

    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"


async def test_a_unique_key_is_held_by_one_live_job(http: httpx.AsyncClient) -> None:
    held = await submit(http, unique_key="u")
    rejected = await http.post("/jobs", json=LATER | {"unique_key": "u"})
    returned = await http.post("/jobs", json=LATER | {"unique_key": "u", "on_conflict": "return"})

    assert rejected.status_code == 409
    assert rejected.json()["type"] == "urn:jobflow:problem:unique-key-taken"
    assert held["id"] in rejected.text
    assert returned.status_code == 200
    assert without_attempts(returned.json()) == held
    replaced = await http.post("/jobs", json=LATER | {"unique_key": "u", "on_conflict": "replace"})
    assert replaced.status_code == 201
    assert (await http.get(f"/jobs/{held['id']}")).json()["status"] == "cancelled"


async def test_bulk_is_all_or_nothing(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    answer = await http.post(
        "/jobs/bulk", json={"jobs": [LATER, LATER | {"priority": 10}, LATER, {"type": "sum", "payload": {}}]}
    )

    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/jobs/1/priority", "/jobs/3/payload"]
    assert await database.fetchval("SELECT count(*) FROM jobs") == 0


async def test_bulk_takes_ten_thousand_in_their_order(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    answer = await http.post("/jobs/bulk", json={"jobs": [LATER] * 10_000})
    ids = [job["id"] for job in answer.json()["jobs"]]

    assert answer.status_code == 201
    assert len(set(ids)) == await database.fetchval("SELECT count(*) FROM jobs") == 10_000
    assert (await http.post("/jobs/bulk", json={"jobs": [LATER] * 10_001})).status_code == 422


# --- reading ---


async def test_a_page_leads_to_the_next_until_the_end(http: httpx.AsyncClient) -> None:
    ids = [(await submit(http, tags=["t"]))["id"] for _ in range(5)]
    await submit(http)
    seen, cursor = [], ""
    for _ in range(3):
        page = (await http.get(f"/jobs?tag=t&limit=2{cursor}")).json()
        assert page["total"] == 5
        assert page["total_capped"] is False
        seen += [job["id"] for job in page["items"]]
        cursor = "&cursor=" + str(page["next_cursor"])

    assert seen == ids[::-1]  # newest first
    assert cursor == "&cursor=None"
    assert [job["id"] for job in (await http.get("/jobs?tag=t&offset=3")).json()["items"]] == ids[1::-1]


async def test_filters_choose(http: httpx.AsyncClient) -> None:
    wanted = await submit(http, type="echo", queue="q", tags=["t"], payload={"user": {"id": 42}, "name": "a b"})
    await submit(http)
    since = wanted["created_at"].replace("+", "%2B")
    for query in (
        *("type=echo", "queue=q", "tag=t", "payload.user.id=42", "payload.name=a+b", "type=echo&queue=q&tag=t"),
        *("status=scheduled&type=echo", "status=failed&status=scheduled&queue=q"),
        f"created_after={since}&type=echo",
    ):
        found = (await http.get(f"/jobs?{query}")).json()
        assert [job["id"] for job in found["items"]] == [wanted["id"]], query
        assert found["total"] == 1
    for query in (
        "type=nobody",
        "status=completed",
        "payload.user.id=43",
        f"created_before={since}&type=echo",
        "error=x",
    ):
        assert (await http.get(f"/jobs?{query}")).json()["items"] == [], query


async def test_a_search_says_how_far_it_looked(http: httpx.AsyncClient) -> None:
    assert (await http.get("/jobs?error=x")).json()["searched"] == 100_000
    assert (await http.get("/jobs?type=x")).json()["searched"] is None


async def test_an_unchanged_job_is_304(http: httpx.AsyncClient) -> None:
    job = await submit(http)
    first = await http.get(f"/jobs/{job['id']}")
    etag = first.headers["etag"]
    again = await http.get(f"/jobs/{job['id']}", headers={"if-none-match": f'"x", {etag}'})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    await http.post(f"/jobs/{job['id']}/cancel")
    changed = await http.get(f"/jobs/{job['id']}", headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


async def test_browsers_are_led_to_the_page(http: httpx.AsyncClient) -> None:
    job = await submit(http)
    answer = await http.get(f"/jobs/{job['id']}", headers={"accept": "text/html,*/*;q=0.8"})

    assert (answer.status_code, answer.headers["location"]) == (303, f"/dashboard/jobs/{job['id']}")


# --- acting ---


async def test_cancel_retry_discard_delete(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    await database.execute("INSERT INTO queues (name, paused_at) VALUES ('stopped', now())")  # or it might run at once
    path = f"/jobs/{(await submit(http, queue='stopped'))['id']}"
    for action, status in (("cancel", "cancelled"), ("cancel", "cancelled"), ("discard", "dead_letter")):
        answer = await http.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    refused = await http.post(f"{path}/cancel", json={})
    assert refused.status_code == 409
    assert refused.json()["current_status"] == "dead_letter"
    retried = await http.post(f"{path}/retry")
    assert retried.status_code == 200
    assert retried.json()["attempt"] == 0

    path = f"/jobs/{(await submit(http))['id']}"
    deleted = await http.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await http.get(path)).status_code == 404


async def test_what_is_not_there_is_404(http: httpx.AsyncClient) -> None:
    for id in (
        uuid4(),
        "1",
        "0190b5d27c1e7d3a9f002b6c1d4e5f60",
        f"{{{uuid4()}}}",
        "0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f6g",
    ):
        for method, action in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/retry"),
            ("POST", "/cancel"),
            ("POST", "/discard"),
        ):
            answer = await http.request(method, f"/jobs/{id}{action}")
            assert answer.status_code == 404, (method, id, action)
