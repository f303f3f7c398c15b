"""A million jobs wait and Redis forgets everything: the first run at once, in their order, and Redis stays small."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from jobflow.pool import Connection
from tests.faults.conftest import note
from tests.support.process import Process, Processes
from tests.support.waiting import until

COUNT = 1_000_000
SEED = """
    INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload)
    SELECT ('01999999-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'default', 'noop', 2 * (n % 2), 'pending', 5,
           now() - interval '1 hour' + n * interval '1 ms', 60, now(), now(), '{}'
      FROM generate_series(1, $1::int) n
"""


@pytest.mark.slow
async def test_r42_a_million_wait_and_redis_is_flushed(run: Processes, database: Connection) -> None:
    await database.execute("INSERT INTO queues VALUES ('default')")
    await database.execute("SET statement_timeout = 0")
    await database.execute(SEED, COUNT)
    await database.execute(
        "INSERT INTO counter_deltas (queue, before, after, bucket, n) VALUES ('default', '', 'pending', 0, $1)", COUNT
    )
    process = await run.start(WORKER_CONCURRENCY="500", JOBFLOW_LOG_LEVEL="warning").ready()
    most = 0

    async def rate(redis: Redis, seconds: float) -> float:
        nonlocal most
        began, before = time.monotonic(), await done(database)
        while time.monotonic() < began + seconds:
            most = max(most, (await redis.info("memory"))["used_memory"])
            await asyncio.sleep(0.1)
        return (await done(database) - before) / (time.monotonic() - began)

    async with Redis.from_url(run.redis_url) as redis:
        await until(lambda: done(database), lambda n: n > 5_000, seconds=20)
        full = await rate(redis, 10)
        flushed_at = await database.fetchval("SELECT clock_timestamp()")
        await redis.flushdb()
        await asyncio.sleep(10)
        again = await rate(redis, 10)
    # What was popped before does not count: the longest time without a claim does.
    pause = await database.fetchval(
        "SELECT extract(epoch FROM max(gap)) FROM (SELECT started_at - lag(started_at, 1, $1) OVER (ORDER BY started_at) AS gap"
        " FROM jobs_done WHERE started_at > $1) x",
        flushed_at,
    )
    await stopped(process)
    note(
        f"no claim for {pause * 1000:.0f} ms at most, {full:.0f} jobs/s before and {again:.0f} after, "
        f"Redis at most {most / 1e6:.1f} MB"
    )
    assert pause < 5
    assert again > 0.8 * full
    assert most <= 50e6
    # Each lane in its order, give or take what is under way at once; the urgent one as much faster as its weight says.
    disorder = """
        SELECT max(abs(a - b)) FROM (SELECT row_number() OVER (PARTITION BY priority ORDER BY started_at, id) AS a,
          row_number() OVER (PARTITION BY priority ORDER BY run_at, id) AS b FROM jobs_done) x
    """
    assert await database.fetchval(disorder) <= 2_000
    shares = dict(await database.fetch("SELECT priority, count(*) FROM jobs_done GROUP BY priority"))
    assert shares[0] > 1.3 * shares[2]
    left = "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM jobs_done)"
    assert await database.fetchval(left) == COUNT


async def done(database: Connection) -> int:
    return int(await database.fetchval("SELECT count(*) FROM jobs_done"))


async def stopped(process: Process) -> None:
    process.terminate()
    assert await process.ended() == 0
