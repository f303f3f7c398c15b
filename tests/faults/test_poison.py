"""A job that kills its process is stopped after three losses; its neighbours finish."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support.process import Processes
from tests.support.waiting import until


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "exit"])
async def test_r27_a_poison_is_given_up_after_three_processes(
    how: str, run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    deaths = 0

    async def supervise() -> None:
        nonlocal deaths
        process = first
        while True:
            await process.ended(seconds=60)
            deaths += 1
            process = run.start(WORKER_CONCURRENCY="5")

    first = await run.start(WORKER_CONCURRENCY="5").ready()
    await load.bulk(first, [load.job(seconds=0.02) for _ in range(250)])
    (poison,) = await load.bulk(first, [{"type": "die", "payload": {"how": how}}])
    with suppress(AssertionError, httpx.TransportError):  # it may be dead before it answers
        await load.bulk(first, [load.job(seconds=0.02) for _ in range(250)])
    supervisor = asyncio.create_task(supervise())
    try:
        await until(load.left, lambda left: not left, seconds=30)
    finally:
        supervisor.cancel()
    await load.finished()
    assert deaths == 3
    row = await database.fetchrow("SELECT status, rescues, attempt, error_type FROM jobs WHERE id = $1", poison)
    assert row is not None
    assert tuple(row) == ("dead_letter", 3, 0, "WorkerLost")
    outcomes = "SELECT outcome FROM job_attempts WHERE job_id = $1 ORDER BY run_epoch"
    assert [r[0] for r in await database.fetch(outcomes, poison)] == ["lost", "lost_again", "given_up"]
    others = await database.fetch("SELECT type, status, rescues FROM jobs WHERE id <> $1", poison)
    assert [tuple(row) for row in others] == [], "the neighbours finish"


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))"


async def test_r27_a_handler_that_takes_all_memory(run: Processes, load: Load, database: Connection) -> None:
    """Within a limit of the process it fails alone. (A limit of the container ends the process: the test above.)"""
    process = await run.start(before=LIMITED, WORKER_CONCURRENCY="5").ready()
    await load.bulk(process, [load.job(seconds=0.02) for _ in range(50)])
    await load.bulk(process, [{"type": "die", "payload": {"how": "hoard"}, "max_attempts": 1}] * 3)
    await load.bulk(process, [load.job(seconds=0.02) for _ in range(50)])
    await load.finished(seconds=120)
    rows = await database.fetch("SELECT status, error_type FROM jobs")
    assert [tuple(row) for row in rows] == [("dead_letter", "MemoryError")] * 3
    process.terminate()
    assert await process.ended() == 0
