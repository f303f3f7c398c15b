"""Postgres decides, so without it nothing moves; what is acknowledged is there afterwards, and an outage is no death."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from jobflow.embedded import Servers
from jobflow.migrate import upgrade
from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import LEASE, Process, Processes, family, own_servers, processes, signal_all
from tests.support.servers import admin_url, fresh_database
from tests.support.waiting import until


@pytest.fixture(scope="module")
def own(servers: object) -> Iterator[Servers]:
    """A Postgres that these tests may hurt."""
    with own_servers(redis_url="redis://elsewhere/") as started:
        yield started


@pytest.fixture
def own_database(own: Servers) -> Iterator[str]:
    assert own.postgres
    with fresh_database(own.postgres.url) as url:
        asyncio.run(upgrade(url))
        yield url


@pytest.fixture
def hurt(own_database: str, tmp_path: Path, redis_url: str) -> Iterator[Processes]:
    with processes(tmp_path, own_database, redis_url) as started:
        yield started


@pytest.fixture
async def database(own_database: str) -> AsyncIterator[Connection]:
    """Not ended by ``pg_terminate_backend`` below, but by a restart."""
    connection = await asyncpg.connect(own_database, ssl=False)
    yield connection
    await connection.close()


class Poster:
    """Posts single jobs until it is told to stop."""

    def __init__(self, load: Load, hurt: Processes) -> None:
        self.load, self.hurt = load, hurt
        self.statuses: list[int] = []
        self._stopped = False

    async def run(self, url: Process) -> None:
        while not self._stopped:
            self.statuses.append(await self.load.one(url, self.load.job("noop")))
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stopped = True


async def test_all_connections_are_cut_ten_times_under_load(hurt: Processes, load: Load, own_database: str) -> None:
    process = await hurt.start().ready()
    await load.mixed(process, 800)
    poster = Poster(load, hurt)
    posting = asyncio.gather(*(poster.run(process) for _ in range(4)))
    admin = await asyncpg.connect(admin_url(own_database), ssl=False)
    try:
        cut = 0
        for _ in range(10):
            await asyncio.sleep(0.25)
            cut += await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'jobflow'"
            )
    finally:
        await admin.close()
        poster.stop()
        await posting
    assert cut > 20
    assert set(poster.statuses) <= {201, 503}
    await load.finished(seconds=LEASE + 10)
    assert process.process.poll() is None


async def test_an_immediate_restart_under_load(hurt: Processes, own: Servers, load: Load, own_database: str) -> None:
    assert own.postgres
    assert own.postgres.process
    process = await hurt.start().ready()
    await load.mixed(process, 600)
    poster = Poster(load, hurt)
    posting = asyncio.gather(*(poster.run(process) for _ in range(4)))
    await asyncio.sleep(0.3)
    own.postgres.process.send_signal(signal.SIGQUIT)
    await asyncio.to_thread(own.postgres.process.wait)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own.postgres.start)
    await process.ready()
    before = len([status for status in poster.statuses if status == 201])
    await asyncio.sleep(0.5)
    poster.stop()
    await posting
    assert set(poster.statuses) <= {201, 503}
    assert 503 in poster.statuses
    assert len([status for status in poster.statuses if status == 201]) > before
    database = await asyncpg.connect(own_database, ssl=False)
    try:
        await until(lambda: oracle.unfinished(database, load.acknowledged), lambda left: not left, seconds=LEASE + 10)
        await oracle.check(database, load.acknowledged)
        assert await database.fetchval("SELECT coalesce(max(rescues), 0) FROM jobs_done") == 0, "nobody died"
    finally:
        await database.close()


async def test_standing_still_for_longer_than_the_lease(
    hurt: Processes, own: Servers, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    assert own.postgres
    assert own.postgres.process
    # An answer that does not come is given up after 12 s, the fate of an insert is asked for 3 s more: not in a test.
    hasty = "import jobflow.pool as p, jobflow.intake as i; p.STATEMENT_TIMEOUT = 1.5; i.SETTLE = 0.5"
    a, b = hurt.start(hasty), hurt.start(hasty)
    await a.ready()
    await b.ready()
    # They outlast the outage by two seconds: time enough to be taken for lost.
    await load.bulk(a, [load.job(seconds=7.5) for _ in range(10)])
    await load.running(10)
    await asyncio.sleep(0.8)  # both are healthy observers by now
    pids = family(own.postgres.process.pid)
    assert len(pids) > 10
    signal_all(pids, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        status = await load.one(a, load.job("noop"))
        waited = time.monotonic() - stopped
        ready = (await client.get(f"{a.url}/readyz")).status_code
        await asyncio.sleep(max(0.0, stopped + 3 * LEASE - time.monotonic()))
    finally:
        signal_all(pids, signal.SIGCONT)
    assert (status, ready) == (503, 503)
    assert waited < 8
    await load.finished(seconds=10)
    await a.ready()
    assert a.events("worker_marked_lost") + b.events("worker_marked_lost") == []
    assert len(load.lines("begin")) == len(load.lines("end")) == 10
    assert await oracle.moves(database, "processing", "pending") == 0
    assert await database.fetchval("SELECT count(*) FROM workers WHERE state = 'alive'") == 2
