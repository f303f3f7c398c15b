"""ctx.complete_in: what a handler writes and its job's completion are committed together, or neither is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from jobflow import Context, job
from jobflow.errors import RunLost
from jobflow.events import ClaimsForgotten, RunEnded, RunRefused
from jobflow.lifecycle import lose
from jobflow.pool import Connection, sqlalchemy_url
from tests.support.rows import history_of, real_counts, row_of, run_of
from tests.support.running import Running
from tests.support.waiting import until

SESSIONS: dict[str, Any] = {}  # what the test hands to the handler: "engine", and "inside" and "go_on" to meet it
WRITE = text("INSERT INTO effects VALUES (:id)")


class Away(Exception):
    pass


async def meet() -> None:
    SESSIONS["inside"].set()
    await SESSIONS["go_on"].wait()


@job("test.in.session", max_attempts=3, backoff=lambda attempt: 3600.0)
async def in_session(payload: dict, ctx: Context) -> str:
    async with AsyncSession(SESSIONS["engine"]) as session:
        await session.execute(WRITE, {"id": str(ctx.job_id)})
        if payload.get("wait") == "before":
            await meet()
        await ctx.complete_in(session, {"paid": 5})
        match payload.get("then"):
            case "raise":
                raise ValueError("after all")
            case "forget":
                await session.rollback()
            case "lose":  # committed, and the answer is lost
                await session.commit()
                raise Away
            case _:
                await session.commit()
    if payload.get("wait") == "after":
        await meet()
    return "not looked at"


@job("test.in.connection")
async def in_connection(payload: dict, ctx: Context) -> None:
    async with SESSIONS["engine"].begin() as connection:
        await ctx.complete_in(connection)
        await connection.execute(WRITE, {"id": str(ctx.job_id)})


@job("test.in.denial")
async def in_denial(payload: dict, ctx: Context) -> None:
    await meet()
    async with SESSIONS["engine"].begin() as connection:
        try:
            await ctx.complete_in(connection)
        except RunLost:
            SESSIONS["caught"] = True


@job("test.in.nonsense", max_attempts=1)
async def in_nonsense(payload: dict, ctx: Context) -> None:
    async with SESSIONS["engine"].begin() as connection:
        await ctx.complete_in(connection, object())


@pytest.fixture
async def engine(database_url: str, database: Connection) -> AsyncIterator[AsyncEngine]:
    """The user's own, to the same database."""
    await database.execute("CREATE TABLE effects (id text)")
    engine = create_async_engine(sqlalchemy_url(database_url))
    SESSIONS.clear()
    SESSIONS.update(engine=engine, inside=asyncio.Event(), go_on=asyncio.Event())
    yield engine
    await engine.dispose()


class Bench:
    def __init__(self, running: Running, database: Connection) -> None:
        self.running, self.database = running, database

    async def start(self, type: str = "test.in.session", **payload: Any) -> UUID:
        (id,) = await self.running.enqueue(1, type, payload=payload)
        if "wait" in payload:
            await asyncio.wait_for(SESSIONS["inside"].wait(), 20)
        return id

    async def end(self, id: UUID) -> tuple[dict[str, Any], int]:
        """The job's row once its run has ended, and how often the handler's own write is there."""

        async def slots() -> int:
            return self.running.engine._slots.free

        async def row() -> dict[str, Any]:
            return await row_of(self.database, id) or {}

        found = await until(row, lambda r: r["status"] not in ("pending", "processing"))
        await until(slots, lambda n: n == 10)
        await self.running.has(RunEnded)  # told a turn of the loop later
        count = await self.database.fetchval("SELECT count(*) FROM effects WHERE id = $1", str(id))
        return found, count

    @property
    def endings(self) -> list[tuple[str, str]]:
        return [(e.change.cause.value, e.status) for e in self.running.seen if isinstance(e, RunEnded)]


@pytest.fixture
def bench(engine: AsyncEngine, running: Running, database: Connection) -> Bench:
    return Bench(running, database)


@pytest.mark.parametrize(("type", "result"), [("test.in.session", '{"paid": 5}'), ("test.in.connection", None)])
async def test_both_are_committed_and_the_engine_does_not_complete_again(
    bench: Bench, database: Connection, type: str, result: str | None
) -> None:
    id = await bench.start(type)
    row, effects = await bench.end(id)
    assert (row["status"], row["result"], row["attempt"], effects) == ("completed", result, 1, 1)
    assert bench.endings == [("completed", "completed")]
    assert await history_of(database, id) == []
    assert await real_counts(database) == {("default", "completed"): 1}
    totals = await bench.running.parts.store.totals()
    assert {status: n for status, n in totals.by_status.items() if n} == {"completed": 1}


@pytest.mark.parametrize(("then", "error"), [("raise", "ValueError"), ("forget", "NotCommitted")])
async def test_without_a_commit_there_is_neither(bench: Bench, then: str, error: str) -> None:
    row, effects = await bench.end(await bench.start(then=then))
    assert (row["status"], row["error_type"], effects) == ("failed", error, 0)
    assert bench.endings == [("errored", "failed")]


async def test_a_commit_whose_answer_was_lost_counts(bench: Bench) -> None:
    row, effects = await bench.end(await bench.start(then="lose"))
    assert (row["status"], effects) == ("completed", 1)
    assert bench.endings == [("completed", "completed")]


async def test_a_run_that_was_given_up_writes_nothing(bench: Bench, database: Connection) -> None:
    id = await bench.start(wait="before")
    # Rescued meanwhile; not to be claimed again in this test.
    await database.execute("UPDATE queues SET paused_at = now()")
    await bench.running.engine._store.end_runs([lose(await run_of(database, id))], revoke=True)
    SESSIONS["go_on"].set()
    refused = await bench.running.has(RunRefused)
    assert refused.change.run.id == id
    row = await row_of(database, id) or {}
    assert (row["status"], row["rescues"]) == ("pending", 1)
    assert await database.fetchval("SELECT count(*) FROM effects") == 0
    assert bench.endings == []


async def test_a_row_that_somebody_holds_for_a_moment_is_waited_for(bench: Bench, database: Connection) -> None:
    id = await bench.start(wait="before")
    async with database.transaction():
        await database.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", id)
        SESSIONS["go_on"].set()
        async with bench.running.engine._store.connection() as connection:
            await until(lambda: connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    row, effects = await bench.end(id)
    assert (row["status"], effects) == ("completed", 1)


async def test_after_its_commit_a_handler_may_go_on(bench: Bench) -> None:
    """Postgres no longer shows the run, which is no reason to stop it."""
    id = await bench.start(wait="after")
    (supervision,) = bench.running.engine._slots.runs.values()
    audits = 0

    async def audited() -> bool:
        nonlocal audits
        before = bench.running.engine._lease.audited
        bench.running.engine._heartbeat.hurry()

        async def later() -> bool:
            return bench.running.engine._lease.audited > before

        audits += await until(later)
        return audits > 2

    await until(audited)
    assert supervision.cause is None
    SESSIONS["go_on"].set()
    assert (await bench.end(id))[0]["status"] == "completed"
    assert not [event for event in bench.running.seen if isinstance(event, ClaimsForgotten)]


@pytest.mark.parametrize("cause", ["timeout", "cancel", "drain"])
async def test_who_is_stopped_after_its_commit_is_completed(bench: Bench, cause: Any) -> None:
    id = await bench.start(wait="after")
    (supervision,) = bench.running.engine._slots.runs.values()
    supervision.stop(cause)
    row, effects = await bench.end(id)
    assert (row["status"], effects) == ("completed", 1)
    assert bench.endings == [("completed", "completed")]


async def test_a_result_that_is_no_json_is_told_before_anything_is_written(bench: Bench) -> None:
    row, _ = await bench.end(await bench.start("test.in.nonsense"))
    assert (row["status"], row["error_type"]) == ("dead_letter", "TypeError")


async def test_a_handler_that_catches_its_loss_is_refused_all_the_same(bench: Bench, database: Connection) -> None:
    await bench.start("test.in.denial", wait="before")
    await database.execute(
        "UPDATE jobs SET run_epoch = run_epoch + 1, status = 'scheduled', run_at = now() + interval '1 h'"
    )
    SESSIONS["go_on"].set()
    await bench.running.has(RunRefused)
    assert "caught" in SESSIONS
    assert bench.endings == []
