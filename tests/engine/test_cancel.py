"""A running job is asked to stop, wherever it runs, and ends cancelled whatever its handler does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from jobflow import Context, job
from jobflow.app import create_app
from jobflow.engine import watchdog
from jobflow.errors import Conflict
from jobflow.events import JobMoved, RunEnded, RunRefused, RunStuck
from jobflow.lifecycle import complete
from jobflow.pool import Connection
from jobflow.settings import Settings
from jobflow.statements import SQL
from tests.support.parts import NOWHERE
from tests.support.rows import history_of, real_counts, row_of, run_of, status_of
from tests.support.running import Running
from tests.support.waiting import until

GATES: list[threading.Event | asyncio.Event] = []


@pytest.fixture(autouse=True)
def _no_gates() -> None:
    GATES.clear()


def gate(type: type[threading.Event | asyncio.Event]) -> Any:
    """An event that the test sets by ``go_on()``."""
    GATES.append(type())
    return GATES[-1]


async def go_on() -> None:
    """Open the gate, once the handler stands before it."""

    async def gates() -> list[threading.Event | asyncio.Event]:
        return GATES

    for each in await until(gates):
        each.set()


@job("test.cancel.deaf")
async def deaf(payload: dict) -> str:
    end = gate(asyncio.Event)
    while not end.is_set():
        try:
            await end.wait()
        except asyncio.CancelledError:
            continue
    return "too late"


@job("test.cancel.blind")
def blind(payload: dict) -> str:
    gate(threading.Event).wait(20)
    return "done"


@job("test.cancel.looking")
def looking(payload: dict, ctx: Context) -> str:
    while not ctx.cancelled:
        time.sleep(0.01)
    return "half of it"


async def cancelled(database: Connection, id: UUID) -> dict[str, Any]:
    async def row() -> dict[str, Any]:
        return await row_of(database, id) or {}

    return await until(row, lambda r: r["status"] not in ("processing", "pending"))


async def told(running: Running) -> None:
    """Until the one run there is was asked to stop."""
    (supervision,) = running.engine._slots.runs.values()

    async def cause() -> str | None:
        return supervision.cause

    assert await until(cause) == "cancel"


async def free(running: Running, slots: int) -> None:
    async def count() -> int:
        return running.engine._slots.free

    await until(count, lambda n: n == slots)


async def endings(running: Running) -> list[str]:
    await running.has(RunEnded)  # told a turn of the loop after the slot is free
    return [event.status for event in running.seen if isinstance(event, RunEnded)]


@asynccontextmanager
async def started(settings: Settings, **changes: Any) -> AsyncIterator[Running]:
    app = create_app(msgspec.structs.replace(settings, **changes))
    running = Running(app)
    async with app.lifespan():
        yield running


async def test_a_running_job_is_asked_to_stop_and_ends_cancelled(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1)
    await running.running(1)
    transport = httpx.ASGITransport(running.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post(f"/jobs/{id}/cancel")
    assert answer.status_code == 202
    asked = answer.json()
    assert (asked["status"], asked["cancel_requested"]) == ("processing", True)
    row = await cancelled(database, id)
    assert (row["status"], row["cancel_reason"]) == ("cancelled", "cancelled by a person")
    assert row["cancel_requested_at"] is not None
    assert [h["outcome"] for h in await history_of(database, id)] == ["cancelled"]
    assert JobMoved(id, "cancel_requested", "processing", "processing") in running.seen
    await free(running, 10)
    assert await endings(running) == ["cancelled"]
    assert await real_counts(database) == {("default", "cancelled"): 1}


async def test_the_reason_that_was_given_stays(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1)
    await running.running(1)
    await running.parts.client.cancel(id, "of no use any more")
    assert (await cancelled(database, id))["cancel_reason"] == "of no use any more"


async def test_who_asks_again_changes_nothing(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1, "test.cancel.deaf", payload={})
    await running.running(1)
    first = await running.parts.client.cancel(id, "first")
    again = await running.parts.client.cancel(id, "second")
    assert (again.status, again.cancel_requested, again.updated_at) == ("processing", True, first.updated_at)
    assert again.cancel_reason == "first"
    await told(running)
    await go_on()
    assert (await cancelled(database, id))["cancel_reason"] == "first"
    assert (await running.parts.client.cancel(id)).status == "cancelled"


async def test_it_reaches_another_process_within_a_second(quick: Settings, database: Connection) -> None:
    """With a lease of 300 s a process asks Postgres only every minute by itself. A busy machine may hold one of them up,
    but not all."""
    took = []
    async with started(quick, lease=300.0) as runner, started(quick, lease=300.0, worker_concurrency=0) as other:
        while not took or (took[-1] >= 1 and len(took) < 5):
            (id,) = await other.enqueue(1)
            await runner.running(1)
            began = time.monotonic()
            await other.parts.client.cancel(id)
            assert (await cancelled(database, id))["status"] == "cancelled"
            took.append(time.monotonic() - began)
            await free(runner, runner.engine._slots.total)
    assert min(took) < 1


async def test_it_reaches_another_process_without_redis(quick: Settings, database: Connection) -> None:
    away = msgspec.structs.replace(quick, redis_url=NOWHERE)
    async with started(away) as runner, started(away, worker_concurrency=0) as other:
        (id,) = await other.enqueue(1)
        await runner.running(1)
        await other.parts.client.cancel(id)
        assert (await cancelled(database, id))["status"] == "cancelled"


@pytest.mark.parametrize("type", ["test.cancel.deaf", "test.cancel.blind"])
async def test_a_handler_that_does_not_end_is_given_up(
    running: Running, database: Connection, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    monkeypatch.setattr(watchdog, "STUCK", 0.3)
    (id,) = await running.enqueue(1, type, payload={})
    await running.running(1)
    run = await run_of(database, id)
    await running.parts.client.cancel(id)
    row = await cancelled(database, id)
    assert (row["status"], row["error_type"]) == ("cancelled", "Stuck")
    assert (await running.has(RunStuck)).run.id == id
    await free(running, 9)
    assert await running.engine._store.complete_jobs([complete(run, None)]) == set()
    await go_on()
    await free(running, 10)
    assert await endings(running) == ["cancelled"]
    assert not [event for event in running.seen if isinstance(event, RunRefused)], "nobody offers it"
    assert await status_of(database, id) == "cancelled"


async def test_a_thread_that_looks_ends_by_itself(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1, "test.cancel.looking", payload={})
    await running.running(1)
    await running.parts.client.cancel(id)
    row = await cancelled(database, id)
    assert (row["status"], row["error_type"]) == ("cancelled", None)
    await free(running, 10)


async def test_what_was_done_before_it_noticed_is_done(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1, "test.cancel.blind", payload={})
    await running.running(1)
    await running.parts.client.cancel(id)
    await told(running)
    assert await status_of(database, id) == "processing", "it gets the time"
    await go_on()
    row = await cancelled(database, id)
    assert (row["status"], row["result"]) == ("completed", '"done"')
    with pytest.raises(Conflict, match="completed"):
        await running.parts.client.cancel(id)


async def test_a_person_who_comes_while_the_job_is_being_completed_is_told_so(
    running: Running, database: Connection
) -> None:
    (id,) = await running.enqueue(1, "test.cancel.deaf", payload={})
    await running.running(1)
    run = await run_of(database, id)
    async with running.engine._store.connection() as connection, connection.transaction():
        columns = [run.id], [run.run_epoch], [run.worker], [None]
        assert await connection.fetch(SQL["complete_jobs"], *columns)
        cancelling = asyncio.create_task(running.parts.client.cancel(id))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    with pytest.raises(Conflict, match="completed"):
        await cancelling
    await go_on()


async def test_a_drained_process_does_not_hand_a_cancelled_job_on(running: Running, database: Connection) -> None:
    running.engine._heartbeat._seen = lambda audit: None  # it never hears of the request
    (id,) = await running.enqueue(1)
    await running.running(1)
    await running.parts.client.cancel(id)
    await running.engine.drain()
    row = await row_of(database, id) or {}
    assert (row["status"], row["cancel_reason"]) == ("cancelled", "cancelled by a person")
    assert [h["outcome"] for h in await history_of(database, id)] == ["released"]
