"""What operators do to Postgres: an older state is put back, it takes no writes, somebody holds a transaction open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from jobflow.broker import lane_key
from jobflow.embedded import Servers
from jobflow.pool import Connection
from tests.faults.conftest import Load, note
from tests.support import oracle
from tests.support.process import Processes
from tests.support.servers import admin_url
from tests.support.waiting import until


@pytest.fixture
async def database(own_database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(own_database, ssl=False)
    yield connection
    await connection.close()


@pytest.fixture
async def admin(own_database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(admin_url(own_database), ssl=False)
    yield connection
    await connection.close()


@pytest.mark.slow
async def test_r49_an_older_state_is_put_back_under_a_running_process(
    hurt: Processes, load: Load, admin: Connection, own_database: str, client: httpx.AsyncClient
) -> None:
    """Redis holds ids that Postgres does not know, in lanes that end where Postgres' do not: they are dropped."""
    name = own_database.rpartition("/")[2]
    process = await hurt.start(JOBFLOW_LANE_SIZE="100").ready()
    kept = await load.bulk(process, [{**load.job("noop"), "delay": 8} for _ in range(50)])
    await load.database.close()

    async def swap(*statements: str) -> None:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for statement in statements:
            await admin.execute(statement)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    await swap(f"CREATE DATABASE {name}_backup TEMPLATE {name} OWNER jobflow")

    async def accepted(job: dict[str, object]) -> bool:
        return await load.one(process, job) == 201

    await until(lambda: accepted(load.job("sleep", seconds=60)), seconds=10)
    await until(lambda: accepted(load.job("sleep", seconds=60)), seconds=10)
    for _ in range(3):
        await load.bulk(process, [{**load.job("noop"), "delay": 10} for _ in range(100)])
    async with Redis.from_url(hurt.redis_url) as redis:
        lane = lane_key("default", 5)

        async def left() -> int:
            return int(await redis.zcard(lane))

        await until(left, lambda n: n > 50, seconds=5)
        await swap(f"DROP DATABASE {name}", f"ALTER DATABASE {name}_backup RENAME TO {name}")
        load.database = await asyncpg.connect(own_database, ssl=False)
        try:
            load.acknowledged = [*kept]
            await until(lambda: accepted(load.job("noop")), seconds=10)
            await load.bulk(process, [load.job("noop") for _ in range(50)])
            await load.finished(seconds=20)

            await until(left, lambda n: n == 0, seconds=15)
            assert await load.database.fetchval("SELECT count(*) FROM jobs_done") == 101
            assert (await client.get(f"{process.url}/readyz")).text.strip() == "ok"
        finally:
            await load.database.close()


async def test_r50_it_takes_no_writes(
    hurt: Processes, load: Load, admin: Connection, database: Connection, client: httpx.AsyncClient
) -> None:
    process = await hurt.start().ready()
    await load.bulk(process, [load.job(seconds=1.0) for _ in range(10)] + [load.job("noop") for _ in range(50)])
    await load.running(10)
    await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        await admin.execute("SELECT pg_reload_conf()")

        async def refused() -> bool:
            return (await client.post(f"{process.url}/jobs", json={"type": "noop"})).status_code == 503

        await until(refused)  # its connections have heard of it
        began = time.monotonic()
        answers: list[httpx.Response] = []
        while time.monotonic() < began + 3:  # the handlers end meanwhile, and leases lapse
            body = {"type": "noop"}
            answers.append(await client.post(f"{process.url}/jobs", json=body))
            answers.append(await client.post(f"{process.url}/jobs", json=body, headers={"Idempotency-Key": "x"}))
            answers.append(await client.post(f"{process.url}/jobs/{load.acknowledged[-1]}/cancel"))
            assert (await client.get(f"{process.url}/jobs/{load.acknowledged[0]}")).status_code == 200
            await asyncio.sleep(0.1)
        late = [answer for answer in answers if answer.status_code != 409]
        assert {answer.status_code for answer in late} == {503}
        assert all(answer.headers["retry-after"] for answer in late)
        assert len(load.lines("end")) == 10
        assert process.process.poll() is None
        assert process.events("loop_failed") == process.events("request_failed") == []
    finally:
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
    await load.finished()
    assert len(load.lines("begin")) == 10, "what had ended was written, not run again"
    assert await oracle.moves(database, "processing", "pending") == 0
    await process.ready()


@pytest.mark.slow
async def test_r22_somebody_holds_a_transaction_for_two_minutes(
    hurt: Processes, load: Load, own_postgres: Servers, admin: Connection, database: Connection, own_database: str
) -> None:
    """Nothing that dies meanwhile can be swept away: the drain must not search through it."""
    process = await hurt.start(WORKER_CONCURRENCY="100").ready()
    await load.drain(process, 2_000)
    before = max([await load.drain(process, 4_000) for _ in range(3)])
    # In this very database: one in another holds nothing back here.
    holder = await asyncpg.connect(own_database, user="postgres", ssl=False)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()")
    pid = await holder.fetchval("SELECT pg_backend_pid()")
    try:
        began, rates = time.monotonic(), []
        while time.monotonic() < began + 120:
            rates.append(await load.drain(process, 4_000))
        told = process.events("transaction_held")
        dead = await database.fetchval("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'jobs'")
    finally:
        await holder.close()
    held = max(rates[-3:])
    note(f"{before:.0f} jobs/s before, {held:.0f} after 2 min: {held / before:.2f}; {dead} dead rows in jobs")
    assert held >= 0.9 * before
    assert dead <= 4 * len(load.acknowledged)
    assert told, "somebody should know"
    assert told[0]["pid"] == pid
    await load.finished()
