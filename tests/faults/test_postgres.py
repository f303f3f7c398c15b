"""Postgres decides, so without it nothing moves; what is acknowledged is there afterwards, and an outage is no death."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import httpx
import pytest

from bench.processes import family, signal_all
from jobflow.embedded import Servers
from jobflow.pool import Connection
from tests.faults.conftest import Load, Poster, note
from tests.support import oracle
from tests.support.process import LEASE, Processes
from tests.support.servers import admin_url
from tests.support.waiting import until

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'jobflow'"


@pytest.fixture
async def database(own_database: str) -> AsyncIterator[Connection]:
    """Not ended by ``pg_terminate_backend`` below, but by a restart."""
    connection = await asyncpg.connect(own_database, ssl=False)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("cuts", "compare"), [(8, False), pytest.param(100, True, marks=pytest.mark.slow, id="for twenty seconds")]
)
async def test_r17_all_connections_are_cut_five_times_a_second(
    cuts: int, compare: bool, hurt: Processes, load: Load, own_database: str
) -> None:
    process = await hurt.start(WORKER_CONCURRENCY="100" if compare else "10").ready()
    before = [await load.drain(process, 5_000) for _ in range(4)][1:] if compare else []
    await load.mixed(process, 800)
    poster = Poster(load, process).start()
    admin = await asyncpg.connect(admin_url(own_database), ssl=False)
    try:
        cut = 0
        for _ in range(cuts):
            await asyncio.sleep(0.2)
            cut += await admin.fetchval(CUT)
    finally:
        await admin.close()
        await poster.stop()
    assert cut > 2 * cuts
    assert set(poster.statuses) <= {201, 503}
    assert 201 in poster.statuses
    await load.finished()
    assert process.process.poll() is None
    if compare:
        bar, after = 0.95 * statistics.median(before), [0.0]
        while max(after) < bar and len(after) < 10:  # others may be busy on this machine, too
            after.append(await load.drain(process, 5_000))
        note(f"{statistics.median(before):.0f} jobs/s before, {max(after):.0f} after")
        assert max(after) >= bar


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_r16_immediate_restarts_under_load(
    times: int, hurt: Processes, own_postgres: Servers, load: Load, own_database: str
) -> None:
    assert own_postgres.postgres
    process = await hurt.start().ready()
    await load.mixed(process, 600)
    poster = Poster(load, process).start()
    for _ in range(times):
        await asyncio.sleep(0.3)
        assert own_postgres.postgres.process
        own_postgres.postgres.process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(own_postgres.postgres.process.wait)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgres.postgres.start)
        back = time.monotonic()
        await process.ready()
        accepted = poster.statuses.count(201)

        async def more(accepted: int = accepted) -> bool:
            return poster.statuses.count(201) > accepted

        await until(more)
        note(f"took jobs again {time.monotonic() - back:.1f} s after Postgres was back")
        assert time.monotonic() - back < 20
    await poster.stop()
    assert set(poster.statuses) <= {201, 503}
    assert 503 in poster.statuses
    assert process.process.poll() is None
    database = await asyncpg.connect(own_database, ssl=False)
    try:
        await until(lambda: oracle.unfinished(database, load.acknowledged), lambda left: not left, seconds=60)
        await oracle.check(database, load.acknowledged)
        assert await database.fetchval("SELECT coalesce(max(rescues), 0) FROM jobs_done") == 0, "nobody died"
    finally:
        await database.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lease", "outage", "processes", "jobs", "seconds"),
    [(LEASE, 3 * LEASE, 2, 10, 7.5), pytest.param(15.0, 40.0, 3, 100, 60.0, id="40 s")],
)
async def test_r18_standing_still_for_longer_than_the_lease(
    lease: float, outage: float, processes: int, jobs: int, seconds: float,
    hurt: Processes, own_postgres: Servers, load: Load, database: Connection, client: httpx.AsyncClient,
) -> None:  # fmt: skip
    assert own_postgres.postgres
    assert own_postgres.postgres.process
    # An answer that does not come is given up after 12 s, the fate of an insert is asked for 3 s more.
    hasty = "import jobflow.pool as p, jobflow.intake as i; p.STATEMENT_TIMEOUT = 1.5; i.SETTLE = 0.5"
    all = [hurt.start(hasty, JOBFLOW_LEASE=str(lease), WORKER_CONCURRENCY="34") for _ in range(processes)]
    for process in all:
        await process.ready()
    # They outlast the outage: time enough to be taken for lost.
    await load.bulk(all[0], [load.job(seconds=seconds) for _ in range(jobs)])
    await load.running(jobs)
    await asyncio.sleep(lease / 2)  # all are healthy observers by now
    pids = family(own_postgres.postgres.process.pid)
    assert len(pids) > 10
    signal_all(pids, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        status = await load.one(all[0], load.job("noop"))
        waited = time.monotonic() - stopped
        ready = (await client.get(f"{all[0].url}/readyz")).status_code
        await asyncio.sleep(max(0.0, stopped + outage - time.monotonic()))
    finally:
        signal_all(pids, signal.SIGCONT)
    assert (status, ready) == (503, 503)
    assert waited < 8
    await load.finished(seconds=seconds)
    for process in all:
        await process.ready()
        assert process.events("worker_marked_lost") == []
        assert process.events("run_refused") == []
    assert len(load.lines("begin")) == len(load.lines("end")) == jobs
    assert await oracle.moves(database, "processing", "pending") == 0
    assert await database.fetchval("SELECT count(*) FROM workers WHERE state = 'alive'") == processes


async def test_r19_others_take_all_connections(
    hurt: Processes, load: Load, database: Connection, own_database: str, client: httpx.AsyncClient
) -> None:
    """What the engine holds it keeps; who needs a new connection is told to come again."""
    process = await hurt.start().ready()
    await load.bulk(process, [load.job(seconds=0.2) for _ in range(400)])
    await load.running(5)
    hogs: list[Connection] = []
    try:
        with suppress(asyncpg.TooManyConnectionsError):
            for _ in range(300):
                hogs += [await asyncpg.connect(own_database, ssl=False)]
        assert len(hogs) > 50
        before = await load.done()
        answers = await asyncio.gather(
            *(client.get(f"{process.url}/jobs?limit=1") for _ in range(20)),
            *(client.post(f"{process.url}/jobs/bulk", json={"jobs": [{"type": "noop"}] * 2}) for _ in range(5)),
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 503}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all(answer.headers["retry-after"] for answer in refused)
        await until(load.done, lambda n: n > before + 20)
    finally:
        for hog in hogs:
            hog.terminate()

    async def again() -> int:
        return await load.one(process, load.job("noop"))

    await until(again, lambda status: status == 201)
    await load.finished()
    assert process.events("lease_lost") == []
