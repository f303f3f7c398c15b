"""Redis hurries and decides nothing: whatever becomes of it, every job runs, once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from jobflow.embedded import Servers
from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support.process import Processes, own_servers, processes
from tests.support.waiting import until

DEAD = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def own(servers: object) -> Iterator[Servers]:
    """A Redis that these tests may hurt."""
    with own_servers(database_url="postgresql://elsewhere/") as started:
        yield started


@pytest.fixture
def hurt(own: Servers, tmp_path: Path, database_url: str) -> Iterator[Processes]:
    assert own.valkey
    with processes(tmp_path, database_url, own.valkey.url) as started:
        yield started


async def test_flushed_again_and_again_under_load(hurt: Processes, load: Load) -> None:
    process = await hurt.start().ready()
    flushes = 0
    async with Redis.from_url(hurt.redis_url) as redis:
        posting = asyncio.create_task(load.mixed(process, 1_000))
        began = time.monotonic()
        while not posting.done() or await load.left() or flushes < 8:
            await redis.flushall()
            flushes += 1
            await asyncio.sleep(0.3)
            assert time.monotonic() - began < 20, await load.left()
        await posting
    await load.finished(seconds=1)


async def test_killed_and_back_after_three_seconds(
    hurt: Processes, own: Servers, load: Load, client: httpx.AsyncClient
) -> None:
    assert own.valkey
    assert own.valkey.process
    process = await hurt.start().ready()
    await load.mixed(process, 200)
    own.valkey.process.send_signal(signal.SIGKILL)
    own.valkey.process.wait()
    gone = time.monotonic()
    statuses = []
    while time.monotonic() < gone + 3:
        statuses.append(await load.one(process, load.job("noop")))
        await asyncio.sleep(0.02)
    assert set(statuses) == {201}
    # A last one while Redis is surely away: the fallback runs it.
    await until(load.left, lambda left: not left, seconds=5)
    answer = await client.get(f"{process.url}/readyz")
    assert (answer.status_code, answer.text.strip()) == (200, "degraded: redis")
    own.valkey.start()
    await load.mixed(process, 200)
    await load.finished(seconds=10)

    async def health() -> str:
        return (await client.get(f"{process.url}/readyz")).text.strip()

    await until(health, lambda text: text == "ok", seconds=5)
    assert [e["server"] for e in process.events("server_back")] == ["redis"]


async def test_started_without_redis(
    run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    process = await run.start(REDIS_URL=DEAD).ready()

    async def health() -> str:
        return (await client.get(f"{process.url}/readyz")).text.strip()

    await until(health, lambda text: text == "degraded: redis", seconds=3)
    await load.mixed(process, 400)
    await load.finished(seconds=15)
    assert await health() == "degraded: redis"
    assert process.events("server_back") == []
    process.terminate()
    assert await process.ended(seconds=8) == 0


async def test_scripts_are_forgotten_and_it_turns_read_only(hurt: Processes, load: Load) -> None:
    process = await hurt.start().ready()
    async with Redis.from_url(hurt.redis_url) as redis:
        await load.mixed(process, 100)
        await redis.script_flush()
        await load.mixed(process, 100)
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        await load.mixed(process, 100)
        await until(load.left, lambda left: not left, seconds=10)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await load.mixed(process, 100)
    await load.finished(seconds=10)
