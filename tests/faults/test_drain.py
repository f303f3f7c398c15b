"""SIGTERM: not ready at once, running jobs finish, the rest is handed back unspent, status 0."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import Process, Processes
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("jobs", "seconds", "grace"), [(10, 4.0, "15"), pytest.param(50, 5.0, "10", marks=pytest.mark.slow)]
)
async def test_r28_running_jobs_finish_while_http_still_answers(
    jobs: int, seconds: float, grace: str, run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    process = await run.start(WORKER_CONCURRENCY=str(jobs), JOBFLOW_GRACE=grace).ready()
    await load.bulk(
        process, [load.job(seconds=seconds) for _ in range(jobs)] + [load.job("noop", n=n) for n in range(5)]
    )
    await load.running(jobs)
    process.terminate()

    async def readiness() -> tuple[int, str]:
        answer = await client.get(f"{process.url}/readyz")
        return answer.status_code, answer.text.strip()

    await until(readiness, lambda answer: answer == (503, "draining"))
    assert (await client.get(f"{process.url}/jobs/{load.acknowledged[0]}")).json()["status"] == "processing"
    assert await load.one(process, load.job("noop")) == 201, "what is accepted while draining is kept for others"
    assert await process.ended() == 0
    assert len(load.lines("begin")) == len(load.lines("end")) == jobs
    assert await database.fetchval("SELECT count(*) FROM jobs_done WHERE attempt = 1 AND rescues = 0") == jobs
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending' AND attempt = 0") == 6
    assert await database.fetchval("SELECT array_agg(state) FROM workers") == ["stopped"]
    await run.start().ready()
    await load.finished()


async def test_r29_jobs_longer_than_the_grace_period_are_released_and_run_elsewhere(
    run: Processes, load: Load, database: Connection
) -> None:
    first = await run.start(JOBFLOW_GRACE="0.3").ready()
    await load.bulk(first, [load.job(seconds=4) for _ in range(10)])
    await load.running(10)
    first.terminate()
    second = run.start()
    assert await first.ended(seconds=20) == 0
    assert load.lines("end") == []
    await second.ready()
    await load.finished()
    assert await database.fetchval("SELECT count(*) FROM jobs_done WHERE attempt = 1 AND rescues = 0") == 10
    outcomes = await database.fetch("SELECT outcome, count(*) AS n FROM job_attempts GROUP BY outcome")
    assert [(row["outcome"], row["n"]) for row in outcomes] == [("released", 10)]
    assert first.events("process_stopped")[0]["released"] == 10


async def test_a_second_signal_does_not_wait_for_the_grace_period(
    run: Processes, load: Load, database: Connection
) -> None:
    process = await run.start(JOBFLOW_GRACE="60").ready()
    await load.bulk(process, [load.job(seconds=50) for _ in range(5)])
    await load.running(5)
    process.terminate()
    await asyncio.sleep(0.3)
    process.terminate()
    assert await process.ended(seconds=20) == 0
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending' AND attempt = 0") == 5


MOMENTS = [0.4, 1.1, *(pytest.param(0.3 + 0.04 * n, marks=pytest.mark.slow) for n in range(48))]  # seconds


@pytest.mark.parametrize("delay", MOMENTS)
async def test_r30_a_signal_at_any_moment_from_the_start_strands_nothing(
    delay: float, run: Processes, load: Load, database: Connection
) -> None:
    """Jobs wait for it, so that the later signals meet its first claims."""
    await waiting(database, 20)
    process = run.start(JOBFLOW_GRACE="0.2")
    await asyncio.sleep(delay)
    process.terminate()
    status = await process.ended()
    assert status == 0 or (status == -15 and not process.said()), process.said()  # -15: Python itself was starting
    await nothing_stranded(process, database)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_signal_during_a_claim_strands_nothing(
    moment: str, run: Processes, load: Load, database: Connection
) -> None:
    await waiting(database, 20)
    claim = "await real(*args, **options)"
    before, after = (claim, "answer") if moment == "after" else ("None", claim)
    process = run.start(
        f"""
import os, signal, jobflow.store as s
real = s.Store.claim_jobs
async def claim(*args, **options):
    answer = {before}
    os.kill(os.getpid(), signal.SIGTERM)
    return {after}
s.Store.claim_jobs = claim
""",
        JOBFLOW_GRACE="0.2",
    )
    assert await process.ended() == 0
    # A claim that is sent after the signal may find that its process says already that it drains.
    assert moment == "before" or await oracle.moves(database, "pending", "processing") > 0
    await nothing_stranded(process, database)


async def waiting(database: Connection, count: int) -> None:
    """Jobs longer than any grace period, submitted when no process was there."""
    insert = """
        INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload)
        SELECT ('01999999-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'default', 'sleep', 5, 'pending', 5, now(), 60,
               now(), now(), '{"seconds": 20}' FROM generate_series(1, $1::int) n
    """
    await database.execute("INSERT INTO queues VALUES ('default')")
    await database.execute(insert, count)


async def nothing_stranded(process: Process, database: Connection) -> None:
    assert "Traceback" not in process.said()
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending' AND attempt = 0") == 20
    assert await database.fetchval("SELECT count(*) FROM workers WHERE state <> 'stopped'") == 0


async def test_a_handler_in_a_thread_does_not_hold_the_process(
    run: Processes, load: Load, database: Connection
) -> None:
    """A thread cannot be stopped, and Python waits for its threads."""
    process = await run.start(JOBFLOW_GRACE="0.3").ready()
    (id,) = await load.bulk(process, [{"type": "sleep.thread", "payload": {"seconds": 60}}])

    async def runs() -> str:
        return str(await database.fetchval("SELECT status FROM jobs WHERE id = $1", id))

    await until(runs, lambda status: status == "processing")
    process.terminate()
    assert await process.ended(seconds=20) == 0
    assert len(process.events("process_stopped")) == 1, "what it had to say is written"
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending' AND attempt = 0") == 1
    assert await database.fetchval("SELECT array_agg(state) FROM workers") == ["stopped"]


async def test_r31_open_event_streams_and_idle_connections_do_not_hold_it(run: Processes, load: Load) -> None:
    process = await run.start().ready()
    readers = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(30)]
    for n, (reader, writer) in enumerate(readers[:25]):  # the others never say a word
        path = "/events" if n < 20 else "/livez"  # streams, and connections that are kept alive
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"200" in await asyncio.wait_for(reader.readline(), 20)
    process.terminate()
    assert await process.ended(seconds=20) == 0
    for _, writer in readers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
