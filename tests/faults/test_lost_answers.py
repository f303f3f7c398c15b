"""A server did what it was asked, and its answer was lost on the way: nobody may guess, and nothing may stay behind."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load, note
from tests.support import oracle
from tests.support.process import Processes, dying
from tests.support.proxy import proxied
from tests.support.rows import history_of, row_of
from tests.support.waiting import until

LEASE = "5"  # seconds: no process is to be lost here


async def test_r08_of_a_claim(run: Processes, load: Load, database: Connection) -> None:
    """The rows are claimed, and the process does not know: its audit hands them back."""
    async with proxied(run.database_url) as proxy:
        process = await run.start(JOBFLOW_LEASE=LEASE, DATABASE_URL=proxy.url).ready()
        proxy.marker = b"the-payload-of-a-claim"  # an insert is answered without it
        (id,) = await load.bulk(process, [load.job(seconds=0.02, mark="the-payload-of-a-claim")])
        await asyncio.wait_for(proxy.dropped.wait(), 20)
        row = await row_of(database, id)
        assert row is not None
        assert row["status"] == "processing"
        assert load.lines("begin") == []
        lost = time.monotonic()
        proxy.mend()
        await load.running(1)
        note(f"it ran {time.monotonic() - lost:.1f} s after the answer was lost")
        await load.finished()
        assert len(process.events("claims_adopted")) == 1
        assert await oracle.moves(database, "processing", "pending") == 1
        row = await row_of(database, id)
        assert row is not None
        assert (row["attempt"], row["rescues"]) == (1, 0)
        assert await history_of(database, id) == [], "it never ran, so there is nothing to tell"


async def test_r09_of_a_completion(run: Processes, load: Load, database: Connection) -> None:
    """It is offered again, recognised as written by ourselves, and its slot is free."""
    async with proxied(run.database_url) as proxy:
        process = await run.start(JOBFLOW_LEASE=LEASE, DATABASE_URL=proxy.url, WORKER_CONCURRENCY="1").ready()
        # Both completers know the statement by now: the first time it is only prepared by what they send first.
        await load.bulk(process, [load.job("noop") for _ in range(10)])
        await load.finished()
        (id,) = await load.bulk(process, [load.job(seconds=0.5)])
        await load.running(1)
        proxy.dropping = True

        async def status() -> str | None:
            row = await row_of(database, id)
            return row["status"] if row else None

        await until(status, lambda status: status == "completed")
        proxy.mend()

        async def another() -> int:
            return await load.one(process, load.job("noop"))

        await until(another, lambda status: status == 201)  # there is one slot
        await load.finished()  # the sweep's time, when the claim met a connection that was cut
        assert len(load.lines("begin")) == 1

        async def ended() -> list[str]:
            return [event["status"] for event in process.events("run_ended") if event["job_id"] == str(id)]

        assert await until(ended) == ["completed"]
        assert process.events("run_refused") == []


async def test_r15_of_a_pop(run: Processes, load: Load, database: Connection) -> None:
    """The ids are in no lane and in nobody's hand: they are found in Postgres, each once."""
    async with proxied(run.redis_url) as proxy:
        process = await run.start(JOBFLOW_LEASE=LEASE, REDIS_URL=proxy.url).ready()
        await load.bulk(process, [load.job("noop")])  # a cold lane would be filled from Postgres
        await load.finished()
        ids = await load.bulk(process, [{**load.job(seconds=0.02), "delay": 1} for _ in range(4)])
        proxy.marker = ids[0].bytes
        await asyncio.wait_for(proxy.dropped.wait(), 20)

        async def swallowed() -> bool:
            return all(id.bytes in proxy.swallowed for id in ids)

        await until(swallowed)
        assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'scheduled'") == 4
        lost = time.monotonic()
        proxy.mend()
        await load.running(4)
        note(f"they ran {time.monotonic() - lost:.1f} s after the answer was lost")
        await load.finished()
        assert len(load.lines("begin")) == 4


@pytest.mark.parametrize("count", [20, pytest.param(50 * 20, marks=pytest.mark.slow)])
async def test_r35_of_requests_with_one_key(
    count: int, run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    """The job is committed and the process dies: whoever asks again, wherever, gets that job."""
    victim = run.start(dying("jobflow.intake:Intake._insert_group", after=True), WORKER_CONCURRENCY="0")
    other = run.start(WORKER_CONCURRENCY="0")
    await victim.ready()
    await other.ready()

    async def post(url: str, body: dict[str, object]) -> httpx.Response | None:
        try:
            return await client.post(f"{url}/jobs", json=body, headers={"Idempotency-Key": "the-one"})
        except httpx.TransportError:
            return None

    job = load.job("noop", n=1)
    first = await asyncio.gather(*(post(victim.url, job) for _ in range(20)))
    assert first == [None] * 20
    assert await victim.ended() == -9
    assert await database.fetchval("SELECT count(*) FROM jobs") == 1
    again = [a for n in range(0, count, 20) for a in await asyncio.gather(*(post(other.url, job) for _ in range(20)))]
    assert {answer.status_code for answer in again if answer} == {201}
    assert {answer.headers["idempotency-replayed"] for answer in again if answer} == {"true"}
    ids = {answer.json()["id"] for answer in again if answer}
    assert ids == {str(id) for (id,) in await database.fetch("SELECT id FROM jobs")}
    reused = await post(other.url, load.job("noop", n=2))
    assert reused is not None
    assert reused.status_code == 422
