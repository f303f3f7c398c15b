"""Redis hurries and decides nothing: whatever becomes of it, every job runs, once."""

from __future__ import annotations

import asyncio
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from jobflow.broker import PRIORITIES, lane_key
from jobflow.embedded import Servers
from jobflow.embedded.valkey import Valkey
from tests.faults.conftest import Load, note
from tests.support.process import Process, Processes, own_servers, processes
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


async def health_of(process: Process, client: httpx.AsyncClient) -> str:
    return (await client.get(f"{process.url}/readyz")).text.strip()


async def loop_lag(process: Process, client: httpx.AsyncClient) -> float:
    """What asks nobody is answered as soon as the loop gets to it. (The metric tells the worst of a whole minute.)"""
    began = time.monotonic()
    assert (await client.get(f"{process.url}/livez")).status_code == 200
    return time.monotonic() - began


def load_slowly(valkey: Valkey) -> float:
    """Restart it in such a way that it reads its data for a while. Returns for how many seconds it said LOADING."""
    with SyncRedis.from_url(valkey.url) as redis:
        redis.mset({f"heavy:{n}": "x" for n in range(40)})
        redis.config_set("appendonly", "no")
        redis.save()
    assert valkey.process
    valkey.process.kill()
    valkey.process.wait()
    command = valkey.command()
    slowly = ["--appendonly", "no", "--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024"]
    valkey.command = lambda: [*command, *slowly]  # type: ignore[method-assign]
    began = time.monotonic()
    valkey.start()
    del valkey.command
    return time.monotonic() - began


async def test_r10_flushed_again_and_again_under_load(hurt: Processes, load: Load) -> None:
    width = 100
    process = await hurt.start(JOBFLOW_LANE_SIZE=str(width)).ready()
    flushes, longest = 0, 0
    async with Redis.from_url(hurt.redis_url) as redis:
        posting = asyncio.create_task(load.mixed(process, 1_000))
        began = time.monotonic()
        while not posting.done() or await load.left() or flushes < 8:
            longest = max(longest, *[await redis.zcard(lane_key("default", priority)) for priority in PRIORITIES])
            await redis.flushall()
            flushes += 1
            await asyncio.sleep(0.3)
            assert time.monotonic() - began < 60, await load.left()
        await posting
        assert longest <= width
    await load.finished()


@pytest.mark.slow
@pytest.mark.parametrize("outage", [3.0, 10.0])
async def test_r11_killed_and_back_after_a_while(
    outage: float, hurt: Processes, own: Servers, load: Load, client: httpx.AsyncClient
) -> None:
    assert own.valkey
    assert own.valkey.process
    process = await hurt.start().ready()
    await load.mixed(process, 200)
    own.valkey.process.send_signal(signal.SIGKILL)
    own.valkey.process.wait()
    shutil.rmtree(own.valkey.folder / "appendonlydir")  # it has forgotten everything
    gone = time.monotonic()
    statuses = []
    while time.monotonic() < gone + outage:
        statuses.append(await load.one(process, load.job("noop")))
        await asyncio.sleep(0.02)
    assert set(statuses) == {201}
    # A last one while Redis is surely away: the fallback runs it.
    await until(load.left, lambda left: not left, seconds=5)
    assert await health_of(process, client) == "degraded: redis"
    own.valkey.start()
    await load.mixed(process, 200)
    await load.finished(seconds=10)
    await until(lambda: health_of(process, client), lambda text: text == "ok", seconds=5)
    assert [e["server"] for e in process.events("server_back")] == ["redis"]


async def test_r12_started_without_redis(run: Processes, load: Load, client: httpx.AsyncClient) -> None:
    process = await run.start(REDIS_URL=DEAD).ready()
    await until(lambda: health_of(process, client), lambda text: text == "degraded: redis")
    await load.mixed(process, 400)
    await load.finished()
    assert await health_of(process, client) == "degraded: redis"
    assert {e["server"] for e in process.events("server_away")} == {"redis"}
    assert process.events("server_back") == []
    process.terminate()
    assert await process.ended(seconds=20) == 0


@pytest.mark.slow
async def test_r13_standing_still_for_ten_seconds(
    hurt: Processes, own: Servers, load: Load, client: httpx.AsyncClient
) -> None:
    """Its port is open and nothing comes: nobody may wait for it for long, and the loop not at all."""
    assert own.valkey
    assert own.valkey.process
    process = await hurt.start().ready()
    await load.mixed(process, 200)
    own.valkey.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    posts, probes, lags, words = [], [], [], set()
    try:
        while time.monotonic() < stopped + 10:
            began = time.monotonic()
            assert await load.one(process, load.job("noop")) == 201
            posts.append(time.monotonic() - began)
            began = time.monotonic()
            words.add(await health_of(process, client))
            probes.append(time.monotonic() - began)
            lags.append(await loop_lag(process, client))
            await asyncio.sleep(0.02)
        await until(load.left, lambda left: not left, seconds=5)
    finally:
        own.valkey.process.send_signal(signal.SIGCONT)
    p99, lag = statistics.quantiles(probes, n=100)[98], statistics.quantiles(lags, n=100)[98]
    note(f"POST at most {max(posts):.2f} s, /readyz p99 {p99 * 1000:.0f} ms, loop lag p99 {lag * 1000:.0f} ms")
    assert words == {"ok", "degraded: redis"}
    assert max(posts) <= 3
    assert p99 < 0.2
    assert lag < 0.1
    await until(lambda: health_of(process, client), lambda text: text == "ok", seconds=5)
    await load.mixed(process, 100)
    await load.finished(seconds=10)


async def test_r14_whatever_it_refuses(hurt: Processes, own: Servers, load: Load, client: httpx.AsyncClient) -> None:
    process = await hurt.start().ready()
    async with Redis.from_url(hurt.redis_url) as redis:
        await load.mixed(process, 100)
        await redis.script_flush()
        await load.mixed(process, 100)
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")  # READONLY
        await load.mixed(process, 100)
        await until(load.left, lambda left: not left, seconds=60)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await load.mixed(process, 100)
        await redis.config_set("maxmemory", "1kb")  # OOM
        await load.mixed(process, 100)
        await until(load.left, lambda left: not left, seconds=60)
        await redis.config_set("maxmemory", "0")
        await load.mixed(process, 100)
    await load.finished()
    assert own.valkey
    loading = asyncio.create_task(asyncio.to_thread(load_slowly, own.valkey))  # LOADING
    while not loading.done():
        assert await load.one(process, load.job("noop")) == 201
        await asyncio.sleep(0.05)
    assert await loading > 1
    await until(lambda: health_of(process, client), lambda text: text == "ok")
    await load.mixed(process, 100)
    await load.finished()
