"""People and workers want the same jobs at the same moment: each gets one of them, and nobody gets an error of ours."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from uuid import UUID

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load, note
from tests.support import oracle
from tests.support.process import LEASE, Processes
from tests.support.waiting import until

DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
SEED = random.randrange(2**32)


async def send(client: httpx.AsyncClient, url: str, body: object = None) -> httpx.Response:
    return await client.post(url, json=body) if body is not None else await client.post(url)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2, 60])
async def test_r23_everything_at_once_on_the_same_jobs(
    seconds: float, run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    """They end, die, are cancelled, discarded, retried one by one and together, and their process is called lost."""
    note(f"seed {SEED}")
    chance = random.Random(SEED)
    both = [run.start(), run.start()]
    for process in both:
        await process.ready()
    urls = [process.url for process in both]
    ids = await load.bulk(both[0], [{"type": "discard"} for _ in range(100)])
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def person() -> None:
        while time.monotonic() < end:
            url, id = chance.choice(urls), chance.choice(ids)
            if chance.random() < 0.4:
                some = [str(id) for id in chance.sample(ids, 60)]
                answer = await send(client, f"{url}/dlq/retry", {"ids": some})
            else:
                answer = await send(client, f"{url}/jobs/{id}/{chance.choice(['cancel', 'retry', 'discard'])}")
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, answer.text

    async def fate() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(1)
            await database.execute(
                "UPDATE workers SET state = 'lost' WHERE id = (SELECT id FROM workers WHERE state = 'alive' LIMIT 1)"
            )

    await asyncio.gather(*(person() for _ in range(16)), fate())
    note(f"{dict(statuses)}, deadlocks: {await database.fetchval(DEADLOCKS)}")
    assert set(statuses) <= {200, 202, 409}
    await until(load.left, lambda left: not left, seconds=LEASE + 10)
    twice = "SELECT id FROM oracle WHERE after = 'processing' AND before <> after GROUP BY id, epoch_after HAVING count(*) > 1"
    assert await database.fetch(twice) == []
    assert [e for process in both for e in process.events("request_failed") + process.events("loop_failed")] == []


async def test_r36_two_people_retry_all_of_ten_thousand(
    run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    count = 10_000
    await database.execute("INSERT INTO queues VALUES ('default')")
    await database.execute(
        """
        INSERT INTO jobs (id, queue, type, priority, status, attempt, max_attempts, rescues, run_at, timeout, created_at,
                          updated_at, finished_at, payload)
        SELECT ('01999999-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'default', 'noop', 5, 'dead_letter', 5, 5, 0,
               now(), 60, now(), now(), now(), '{}' FROM generate_series(1, $1::int) n
        """,
        count,
    )
    await database.execute(
        "INSERT INTO counter_deltas (queue, before, after, bucket, n) VALUES ('default', '', 'dead_letter', 0, $1)",
        count,
    )
    load.acknowledged = [row["id"] for row in await database.fetch("SELECT id FROM jobs")]
    both = [run.start(WORKER_CONCURRENCY="100"), run.start(WORKER_CONCURRENCY="100")]
    for process in both:
        await process.ready()
    answers = await asyncio.gather(*(send(client, f"{p.url}/dlq/retry", {"all": True}) for p in both))
    assert [answer.status_code for answer in answers] == [202, 202]

    async def done() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs_done"))

    await until(done, lambda n: n == count, seconds=60)
    assert await oracle.moves(database, "dead_letter", "pending") == count, "each once"
    await load.finished()


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_r37_cancelled_at_any_moment(
    count: int, run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    """While it waits for its time, is ready, runs, waits for its retry, or has ended."""
    note(f"seed {SEED}")
    chance = random.Random(SEED)
    process = await run.start(WORKER_CONCURRENCY="20").ready()
    kinds = ["noop", "sleep", "fail", "fail.once", "discard"]
    said: dict[UUID, int] = {}

    async def cancel(id: UUID, wait: float) -> None:
        await asyncio.sleep(wait)
        said[id] = (await send(client, f"{process.url}/jobs/{id}/cancel")).status_code

    for _ in range(count // 100):
        jobs: list[dict[str, object]] = [
            {"type": chance.choice(kinds), "payload": {"seconds": 0.1}, "delay": chance.choice([0, 0, 0.3])}
            for _ in range(100)
        ]
        ids = await load.bulk(process, jobs)
        await asyncio.gather(*(cancel(id, chance.random() * 0.8) for id in ids))
    await load.finished(seconds=60)
    ends = await oracle.statuses(database)
    note(str(dict(Counter((said[id], ends[id]) for id in said))))
    assert set(said.values()) <= {200, 202, 409}
    assert {ends[id] for id in said if said[id] == 200} == {"cancelled"}
    assert "cancelled" not in {ends[id] for id in said if said[id] == 409}
    # Judged by the database's own order of things: nothing starts after it was cancelled, or after it was asked to end.
    assert await database.fetch("SELECT id FROM oracle WHERE before = 'cancelled'") == []
    again = """
        SELECT a.id FROM oracle a JOIN oracle b ON b.id = a.id AND b.n > a.n
         WHERE a.after = 'cancelled' AND b.after = 'processing'
    """
    assert await database.fetch(again) == []
