"""The whole engine in the test's loop: what the audit finds, and how it drains."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any
from uuid import UUID

import msgspec
import pytest

from jobflow import Context, job
from jobflow.app import create_app
from jobflow.broker import Entry
from jobflow.engine import agenda, heartbeat
from jobflow.engine import engine as module
from jobflow.engine.engine import Engine
from jobflow.engine.heartbeat import Audit
from jobflow.engine.lease import boottime
from jobflow.errors import BrokerUnavailable, StoreUnavailable
from jobflow.events import (
    ClaimsAdopted,
    ClaimsForgotten,
    LeaseLost,
    LoopBlocked,
    ProcessDraining,
    ProcessStarted,
    ProcessStopped,
    RunRefused,
)
from jobflow.pool import Connection
from jobflow.settings import Settings
from jobflow.statements import SQL
from tests.support.parts import losing
from tests.support.rows import add_job, add_worker, ago, history_of, row_of, status_of
from tests.support.running import Running
from tests.support.waiting import until


async def count(database: Connection, where: str) -> int:
    return int(await database.fetchval(f"SELECT count(*) FROM jobs WHERE {where}"))


async def all_free(running: Running) -> None:
    """Until no run holds a slot, and no fetcher has set any aside."""

    async def free() -> int:
        return running.engine._slots.free

    await until(free, lambda n: n == 10)


# --- start ---


async def test_it_says_who_it_is_when_it_has_started(running: Running, database: Connection) -> None:
    event = await running.has(ProcessStarted)
    assert event.worker == await database.fetchval("SELECT id FROM workers WHERE state = 'alive'")
    assert event.concurrency == 10
    assert "noop" in event.types
    assert running.engine.state == "running"
    assert running.engine.live_processes == 1
    assert running.engine.pulse() < 5
    assert (running.engine.store_up, running.engine.broker_up) == (True, True)
    assert await database.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'jobs_done'::regclass") == 5


async def test_a_process_without_slots_runs_nothing_and_keeps_the_rest_going(
    quick: Settings, database: Connection
) -> None:
    app = create_app(msgspec.structs.replace(quick, worker_concurrency=0))
    running = Running(app)
    late = await add_job(database, expires_at=None)
    await database.execute("UPDATE jobs SET expires_at = now() - interval '1 second' WHERE id = $1", late)
    async with app.lifespan():
        (id,) = await running.enqueue(1, "noop", payload={})

        async def expired() -> str | None:
            return await status_of(database, late)

        await until(expired, lambda status: status == "cancelled")
        assert await status_of(database, id) == "pending"
    assert running.engine.state == "stopped"


# --- new jobs of this process ---


class Pushes:
    """What is pushed to Redis, and every pop: noted and, if asked for, refused as by a Redis that is away."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch, *, away: bool) -> None:
        self.ids: list[UUID] = []
        self.pops = 0
        broker = running.parts.broker
        push, pop = broker.push, broker.pop

        async def pushed(queue: str, entries: Any, **options: Any) -> Any:
            self.ids += [entry.id for entry in entries]
            if away:
                raise BrokerUnavailable("away")
            return await push(queue, entries, **options)

        async def popped(*args: Any) -> Any:
            self.pops += 1
            if away:
                raise BrokerUnavailable("away")
            return await pop(*args)

        monkeypatch.setattr(broker, "push", pushed)
        monkeypatch.setattr(broker, "pop", popped)


async def completed(running: Running, database: Connection, count: int) -> None:
    """So many jobs, and since then nothing goes on: the lanes are filled, the queue is known, all fetchers rest."""
    engine = running.engine
    agenda, slots = engine._agenda, engine._slots
    looks = 0

    async def idle() -> int:
        """How often in a row it looked like that: some news may have been on its way."""
        nonlocal looks
        listens = "wake-listener" in engine._pulse._due
        resting = len(agenda.wake._waiters) == len(engine._fetchers) and engine._scheduler.wake.awaited
        quiet = listens and resting and slots.free == slots.total and not agenda.holds("default")
        looks = looks + 1 if quiet else 0
        return looks

    async def done() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs_done"))

    await until(done, lambda n: n == count)
    await until(idle, lambda n: n == 3)


async def test_a_process_that_has_nothing_to_do_runs_a_new_job_without_redis(
    quick: Settings, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "POLL", 60.0)  # nobody finds anything by looking now and then
    running = Running(create_app(quick))
    async with running.app.lifespan():
        await running.enqueue(1, "noop", payload={})  # its queue is new
        await completed(running, database, 1)
        redis = Pushes(running, monkeypatch, away=True)
        await running.enqueue(1, "noop", payload={})
        await completed(running, database, 2)
        assert (redis.ids, redis.pops) == ([], 0), "neither it nor the sweep"
        assert running.engine.broker_up


async def test_a_process_without_slots_tells_redis_of_new_jobs(
    quick: Settings, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(create_app(msgspec.structs.replace(quick, worker_concurrency=0)))
    redis = Pushes(running, monkeypatch, away=False)
    async with running.app.lifespan():
        ids = await running.enqueue(3, "noop", payload={})
        await running.parts.client._pusher.flush()
        assert set(redis.ids) == set(ids)  # perhaps more than once: opening a lane pushes, too
        assert await count(database, "status = 'pending'") == 3


# --- the audit ---


async def test_claims_whose_answer_was_lost_are_handed_back_and_run(running: Running, database: Connection) -> None:
    mends = [losing(fetcher._store, "claim_jobs") for fetcher in running.engine._fetchers]
    ids = await running.enqueue(3, "noop", payload={})

    async def claimed() -> int:
        return await count(database, "status = 'processing'")

    await until(claimed)
    for mend in mends:
        mend()
    assert (await running.has(ClaimsAdopted)).count >= 1

    async def done() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs_done WHERE attempt = 1"))

    await until(done, lambda n: n == 3)
    assert await history_of(database, ids[0]) == [], "they never started, so there is nothing to tell"
    await all_free(running)


async def test_one_audit_is_not_enough_to_hand_a_claim_back(running: Running, database: Connection) -> None:
    """A run that has just ended, or has just been claimed, looks the same once."""
    engine = running.engine
    await engine._heartbeat.stop()
    id = await add_job(database, "processing", locked_by=engine._lease.worker)
    await database.execute("INSERT INTO queues VALUES ('default') ON CONFLICT DO NOTHING")
    rows = await audited(engine)
    engine._seen(rows)
    assert engine._endings.take() == []
    engine._seen(msgspec.structs.replace(rows, rows=[]))
    engine._seen(rows)
    assert engine._endings.take() == [], "twice in a row"
    engine._fetchers[0].claiming_since = rows.asked - 1
    engine._seen(rows)
    assert engine._endings.take() == [], "a claim is on its way"
    engine._fetchers[0].claiming_since = None
    engine._seen(rows)
    engine._seen(rows)
    (ending,) = engine._endings.take()
    assert (ending.change.run.id, ending.change.attempt, ending.change.recorded) == (id, 0, False)
    await engine._store.end_runs([ending.change])
    assert await status_of(database, id) in ("pending", "processing", "completed")


async def audited(engine: Engine) -> Audit:
    async with engine._store.connection() as connection:
        rows = await connection.fetch(SQL["audit_runs"], list(engine._lease.identities))
    return Audit(boottime(), rows)


async def test_runs_whose_claim_is_gone_are_cancelled(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1)
    await running.running(1)
    # As after a crash of Postgres that forgot the claim.
    await database.execute(
        "UPDATE jobs SET status = 'pending', attempt = 0, locked_by = NULL, run_epoch = 0, run_at = now() + interval '1 hour'"
    )
    assert (await running.has(ClaimsForgotten)).count == 1
    await running.has(RunRefused)
    await all_free(running)
    row = await row_of(database, id)
    assert row is not None
    assert (row["status"], row["attempt"], row["run_epoch"]) == ("pending", 0, 0)


async def test_a_run_that_was_claimed_after_the_audit_was_asked_is_not_judged(running: Running) -> None:
    await running.enqueue(1)
    await running.running(1)
    (supervision,) = running.engine._slots.runs.values()
    running.engine._seen(Audit(supervision.claimed - 0.001, []))
    assert supervision.cause is None
    running.engine._seen(Audit(supervision.claimed + 0.001, []))
    assert supervision.cause == "lost"


async def test_a_cancel_request_reaches_the_handler(running: Running, database: Connection) -> None:
    (id,) = await running.enqueue(1)
    await running.running(1)
    await database.execute("UPDATE jobs SET cancel_requested_at = now(), cancel_reason = 'enough'")

    async def status() -> str | None:
        return await status_of(database, id)

    await until(status, lambda s: s == "cancelled")


RUNS: list[UUID] = []  # the identities that ran test.again


@job("test.again")
async def again(payload: dict, ctx: Context) -> str:
    RUNS.append(ctx._run.worker)
    if len(RUNS) == 1:
        await asyncio.Event().wait()
    return "the second"


async def test_a_process_that_was_marked_lost_goes_on_under_a_new_name_and_its_jobs_run_again_once(
    running: Running, database: Connection
) -> None:
    RUNS.clear()
    (id,) = await running.enqueue(1, "test.again", payload={})
    await running.running(1)
    await database.execute("UPDATE workers SET state = 'lost'")
    lost = await running.has(LeaseLost)

    async def done() -> Any:
        return await row_of(database, id)

    row = await until(done, lambda r: r["status"] == "completed")
    assert [lost.worker, lost.successor] == RUNS
    assert (row["locked_by"], row["rescues"], row["attempt"]) == (lost.successor, 1, 1)
    assert row["result"] == '"the second"'
    assert [h["outcome"] for h in await history_of(database, id)] == ["lost"]
    assert (await running.has(RunRefused)).change.run.worker == lost.worker
    await all_free(running)


@job("test.blocking")
async def blocking(payload: dict) -> None:
    time.sleep(payload["seconds"])  # noqa: ASYNC251


async def test_who_blocks_the_loop_is_named(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SLOW", 0.3)
    await running.enqueue(2)
    await running.running(2)
    (id,) = await running.enqueue(1, "test.blocking", payload={"seconds": 1.2})

    async def blocked() -> list[LoopBlocked]:
        told = [event for event in running.seen if isinstance(event, LoopBlocked)]
        return [event for event in told if event.run and event.run.id == id]  # a busy machine may hold the loop up, too

    assert "in blocking" in (await until(blocked))[0].stack


# --- who handles what ---


async def test_a_type_that_another_process_lists_is_handed_back_unspent(running: Running, database: Connection) -> None:
    other = await add_worker(database, types=["elsewhere"])
    (id,) = await running.enqueue(1, "elsewhere", payload={})

    async def handed_back() -> Any:
        return await database.fetchrow("SELECT status, attempt FROM jobs WHERE id = $1 AND run_epoch > 0", id)

    row = await until(handed_back, lambda r: r is not None and r["status"] == "scheduled")
    assert row["attempt"] == 0
    await database.execute("UPDATE workers SET lease_until = now() - interval '1 hour' WHERE id = $1", other)

    async def failed() -> Any:
        return await row_of(database, id)

    row = await until(failed, lambda r: r["status"] == "failed")
    assert (row["error_type"], row["attempt"]) == ("NoHandler", 1)


async def test_who_handles_what_is_asked_once_a_second(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    ask = running.engine._store.handled_types

    async def counted() -> set[str]:
        nonlocal asked
        asked += 1
        return await ask()

    monkeypatch.setattr(running.engine._store, "handled_types", counted)
    monkeypatch.setattr(module, "TYPES_KEPT", 3600.0)
    running.engine._handled = (-math.inf, set())
    for _ in range(5):
        assert await running.engine._has_elsewhere("noop")
        assert not await running.engine._has_elsewhere("nobody.does.this")
    assert asked == 1
    monkeypatch.setattr(module, "TYPES_KEPT", 0.0)
    await running.engine._has_elsewhere("noop")
    assert asked == 2


# --- drain ---


async def test_draining_hands_back_what_does_not_finish_and_claims_nothing_more(
    running: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANCEL_WAIT", 60.0)  # nobody waits for handlers that do as they are told
    ids = await running.enqueue(15)
    await running.running(10)
    await asyncio.wait_for(running.engine.drain(), 15)
    assert running.engine.state == "stopped"
    assert await count(database, "status = 'pending' AND attempt = 0") == 15
    assert await database.fetchval("SELECT count(*) FROM job_attempts WHERE outcome = 'released'") == 10
    assert await database.fetchval("SELECT state FROM workers") == "stopped"
    assert (await running.has(ProcessDraining)).running == 10
    assert (await running.has(ProcessStopped)).released == 10
    assert [t.get_name() for t in running.engine._tasks.values() if not t.done()] == []
    await running.enqueue(1)
    await running.engine.drain()  # a second one has nothing to do
    assert len(ids) == 15


GATES: list[asyncio.Event] = []


@job("test.gated")
async def gated(payload: dict) -> None:
    await GATES[-1].wait()


async def test_what_finishes_within_the_grace_period_is_completed(quick: Settings, database: Connection) -> None:
    app = create_app(msgspec.structs.replace(quick, grace=60))
    running = Running(app)
    GATES.append(asyncio.Event())
    async with app.lifespan():
        await running.enqueue(5, "test.gated", payload={})
        await running.running(5)
        draining = asyncio.create_task(running.engine.drain())
        await running.has(ProcessDraining)
        GATES[-1].set()
        await asyncio.wait_for(draining, 15)  # nobody waits when nothing runs
    assert await database.fetchval("SELECT count(*) FROM jobs_done WHERE attempt = 1") == 5
    assert (await running.has(ProcessStopped)).released == 0


async def test_claims_that_never_started_are_handed_back_as_if_they_had_not_been_made(
    quick: Settings, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle:
        def __init__(self, name: str, **parts: Any) -> None:
            self.task: asyncio.Task[bool]

        def start(self) -> None:
            self.task = asyncio.create_task(asyncio.Event().wait())

    monkeypatch.setattr(module, "Worker", Idle)
    app = create_app(quick)
    running = Running(app)
    async with app.lifespan():
        ids = await running.enqueue(4)

        async def claimed() -> int:
            return len(running.engine._slots.inbox)

        await until(claimed, lambda n: n == 4)
        await running.engine.drain()
    assert (await running.has(ProcessStopped)).released == 0, "nothing had to be stopped"
    assert await count(database, "status = 'pending' AND attempt = 0") == 4
    assert await history_of(database, ids[0]) == []


async def test_hurrying_cuts_the_grace_period_short(quick: Settings, database: Connection) -> None:
    app = create_app(msgspec.structs.replace(quick, grace=60))
    running = Running(app)
    async with app.lifespan():
        await running.enqueue(3)
        await running.running(3)
        draining = asyncio.create_task(running.engine.drain())
        await asyncio.sleep(0.3)
        assert running.engine.state == "draining"
        assert not draining.done()
        running.engine.hurry()
        await asyncio.wait_for(draining, 15)
    assert await count(database, "status = 'pending' AND attempt = 0") == 3


async def test_what_was_handed_over_when_the_drain_began_is_left_to_others(
    quick: Settings, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "POLL", 60.0)
    running = Running(create_app(quick))
    async with running.app.lifespan():
        await running.enqueue(1, "noop", payload={})
        await completed(running, database, 1)
        pusher, offer = running.engine._pusher, running.engine._handoff.offer
        taken: list[bool] = []

        def at_the_last_moment(queue: str, entries: list[Entry]) -> bool:
            running.engine._claiming.asked = True
            taken.append(offer(queue, entries))
            return taken[-1]

        monkeypatch.setattr(pusher, "offer", at_the_last_moment)
        ids = await running.enqueue(1, "noop", payload={})
        assert taken == [True]
        await asyncio.wait_for(running.engine.drain(), 15)
        assert await status_of(database, ids[0]) == "pending"
        ids += await running.enqueue(1, "noop", payload={})
        assert taken == [True, False], "nobody is there any more"
        await pusher.flush()
        popped = await running.parts.broker.pop("default", ago(-60), 9)
        assert sorted(popped.ids) == sorted(ids)


@job("test.deaf")
async def deaf(payload: dict) -> None:
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


async def test_a_handler_that_does_not_let_go_does_not_hold_the_process(
    running: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANCEL_WAIT", 0.3)
    await running.enqueue(1, "test.deaf", payload={"seconds": 60})
    await running.running(1)
    draining = asyncio.create_task(running.engine.drain())

    async def released() -> int:
        return await count(database, "status = 'pending' AND attempt = 0")

    await until(released)
    await asyncio.wait_for(draining, 20)


async def test_a_handler_that_never_lets_go_does_not_keep_the_process_from_ending(
    running: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANCEL_WAIT", 0.3)
    await running.enqueue(1, "test.deaf", payload={"seconds": 3600})
    await running.running(1)
    (supervision,) = running.engine._slots.runs.values()
    await asyncio.wait_for(running.engine.drain(), 20)
    assert await count(database, "status = 'pending' AND attempt = 0") == 1
    assert supervision.task is not None
    assert supervision.task.done(), "or the event loop could not be closed"


async def test_draining_without_postgres_gives_up_in_the_end(
    quick: Settings, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_WAIT", 0.5)
    app = create_app(quick)
    running = Running(app)
    async with app.lifespan():
        await running.enqueue(2)
        await running.running(2)

        async def away(*args: Any, **options: Any) -> None:
            raise StoreUnavailable("away")

        for store in [running.engine._store, *(c._store for c in running.engine._completers)]:
            for name in ("complete_jobs", "end_runs", "set_worker_state"):
                monkeypatch.setattr(store, name, away)
        await asyncio.wait_for(running.engine.drain(), 20)
        assert running.engine.state == "stopped"
    assert await count(database, "status = 'processing'") == 2, "the lease lapses, and others rescue them"
