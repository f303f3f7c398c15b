"""A process that stood still past its lease must not end what others have taken over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import Processes
from tests.support.waiting import until


async def test_r07_its_endings_are_refused_and_it_goes_on_under_a_new_identity(
    run: Processes, load: Load, database: Connection
) -> None:
    stale, other = run.start(), run.start()
    await stale.ready()
    await other.ready()
    await load.bulk(stale, [load.job(seconds=3.0) for _ in range(20)])
    await load.running(20)
    stale.stop()
    try:
        held = "SELECT count(*) FROM jobs j JOIN workers w ON w.id = j.locked_by WHERE w.pid = $1 AND j.status = 'processing'"
        count = await database.fetchval(held, stale.process.pid)
        assert count == 10
        await load.running(20 + count)  # the other runs them now
    finally:
        stale.go_on()
    await load.finished()

    async def refused() -> int:
        return len(stale.events("run_refused"))

    await until(refused, lambda n: n == count)
    assert sum(e["count"] for e in other.events("runs_rescued")) == count
    assert await oracle.moves(database, "processing", "pending") == count

    async def renamed() -> list[dict[str, Any]]:
        return stale.events("lease_lost")  # with its next beat

    (lost,) = await until(renamed)
    assert lost["worker"] != lost["successor"]
    rows = {str(row["id"]): row["state"] for row in await database.fetch("SELECT id, state FROM workers")}
    assert rows[lost["worker"]] == "lost"
    assert rows[lost["successor"]] == "alive"
    # Under its new name it is worth as much as before.
    other.terminate()
    assert await other.ended() == 0
    await load.bulk(stale, [load.job("noop") for _ in range(5)])
    await load.finished()
    who = "SELECT DISTINCT locked_by::text FROM jobs_done WHERE id = ANY ($1)"
    assert [row[0] for row in await database.fetch(who, load.acknowledged[-5:])] == [lost["successor"]]


@pytest.mark.parametrize("seconds", [4.0, pytest.param(20.0, marks=pytest.mark.slow)])
async def test_r24_a_handler_that_holds_the_loop_costs_no_lease(
    seconds: float, run: Processes, load: Load, client: httpx.AsyncClient
) -> None:
    """The heart beats in a thread of its own; nobody else takes the job, and whoever looks sees that it is not well."""
    busy, other = (run.start(WORKER_CONCURRENCY=slots, JOBFLOW_LEASE="2.5") for slots in ("10", "0"))
    await busy.ready()
    await other.ready()
    began = time.monotonic()
    await load.bulk(other, [load.job("block", seconds=seconds)])
    await load.running(1)
    with pytest.raises(httpx.TimeoutException):
        await client.get(f"{busy.url}/livez", timeout=1.0)
    while not load.lines("end"):
        await asyncio.sleep(0.002)

    async def late() -> float:
        answer = await client.get(f"{busy.url}/metrics", headers={"accept": "text/plain; version=0.0.4"})
        (line,) = [n for n in answer.text.splitlines() if n.startswith("jobflow_event_loop_lag_seconds ")]
        return float(line.split()[1])

    await until(late, lambda lag: lag > seconds / 2)
    assert time.monotonic() - began >= seconds
    await load.finished()
    assert len(load.lines("begin")) == 1
    assert other.events("worker_marked_lost") == busy.events("lease_lost") == []


@pytest.mark.slow
async def test_r25_a_handler_that_holds_the_interpreter(run: Processes, load: Load, database: Connection) -> None:
    """Not even the thread of the heart runs: its job may run elsewhere, and is accepted once."""
    busy, other = run.start(), run.start(WORKER_CONCURRENCY="0")
    await busy.ready()
    await other.ready()
    await load.bulk(other, [load.job("block", seconds=5.0, gil=True)])
    await load.running(1)
    third = await run.start().ready()
    await load.finished(seconds=20)
    lost = {event["worker"] for event in other.events("worker_marked_lost") + third.events("worker_marked_lost")}
    me = busy.events("process_started")[0]["worker"]
    assert me in lost, "it was taken for dead"
    assert len(load.lines("begin")) > 1
    assert await oracle.moves(database, "processing", "completed") == 1

    async def again() -> bool:
        return me in [event["worker"] for event in busy.events("lease_lost")]

    await until(again, seconds=10)
    await load.bulk(busy, [load.job("noop")])
    await load.finished()


@pytest.mark.slow
async def test_r26_a_handler_that_does_not_let_itself_be_cancelled(
    run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    process = await run.start(WORKER_CONCURRENCY="3").ready()
    await load.bulk(process, [{"type": "stubborn"}] * 2)
    await load.finished(seconds=15)
    rows = await database.fetch("SELECT status, error_type FROM jobs")
    assert [tuple(row) for row in rows] == [("dead_letter", "Stuck")] * 2
    assert len(process.events("run_stuck")) == 2
    await load.bulk(process, [load.job(seconds=0.05) for _ in range(50)])
    await load.finished()
    answer = await client.get(f"{process.url}/metrics", headers={"accept": "text/plain; version=0.0.4"})
    assert "jobflow_runs_stuck_total 2" in answer.text
    await load.bulk(process, [{"type": "stubborn"}])
    await load.finished(seconds=15)
    assert await process.ended(seconds=20) == 2, "no slot is left: it drains and ends, so that a new one is started"
    assert "Every slot is held by a handler that does not end" in process.said()
    assert len(process.events("process_stopped")) == 1
