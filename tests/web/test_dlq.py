"""/dlq over HTTP."""

from __future__ import annotations

from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.waiting import until


async def dead(http: httpx.AsyncClient, **members: Any) -> str:
    job = (await http.post("/jobs", json={"type": "noop", "delay": 3600} | members)).json()
    await http.post(f"/jobs/{job['id']}/discard")
    return str(job["id"])


async def count(database: asyncpg.Connection) -> int:
    return int(await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'dead_letter'"))


async def left(database: asyncpg.Connection, wanted: int) -> None:
    """Wait until ``wanted`` dead ones are left: a redrive goes on after its answer."""
    await until(lambda: count(database), lambda n: n == wanted)


async def test_it_lists_the_dead_only(http: httpx.AsyncClient) -> None:
    first, second = await dead(http), await dead(http, queue="other")
    await http.post("/jobs", json={"type": "noop", "delay": 3600})

    page = (await http.get("/dlq")).json()
    assert [job["id"] for job in page["items"]] == [second, first]
    assert page["total"] == 2
    assert [job["id"] for job in (await http.get("/dlq?queue=other")).json()["items"]] == [second]
    assert (await http.get("/dlq?status=failed")).status_code == 422


@pytest.mark.parametrize(
    ("wanted", "matched"),
    [({"all": True}, 3), ({"queue": "other"}, 2), ({"type": "noop", "tag": "t"}, 1), ({"tag": "nobody"}, 0)],
)
async def test_retry_by_filter(
    http: httpx.AsyncClient, database: asyncpg.Connection, wanted: dict[str, Any], matched: int
) -> None:
    for members in ({}, {"queue": "other"}, {"queue": "other", "tags": ["t"]}):
        await dead(http, **members)
    answer = await http.post("/dlq/retry", json=wanted)

    assert (answer.status_code, answer.json()) == (202, {"matched": matched})
    await left(database, 3 - matched)


async def test_retry_by_ids(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    first, _ = await dead(http), await dead(http)
    alive = (await http.post("/jobs", json={"type": "noop", "delay": 3600})).json()["id"]
    answer = await http.post("/dlq/retry", json={"ids": [first, alive]})

    assert answer.json() == {"matched": 1}
    await left(database, 1)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"all": False},
        {"all": True, "queue": "q"},
        {"ids": []},
        {"ids": ["x"]},
        {"status": "failed"},
        {"type": None},
    ],
)
async def test_nobody_revives_everything_by_a_slip(
    http: httpx.AsyncClient, database: asyncpg.Connection, wanted: dict[str, Any]
) -> None:
    id = await dead(http)
    for body in (wanted, wanted | {"ids": [id], "queue": "default"}):
        answer = await http.post("/dlq/retry", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"]
    assert await count(database) == 1
