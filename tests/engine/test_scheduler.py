"""Whatever Redis lost or never heard of, a due job is found."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from jobflow.broker import Broker, Entry
from jobflow.engine import scheduler as module
from jobflow.engine.lease import boottime
from jobflow.engine.scheduler import OVERDUE
from jobflow.errors import StoreUnavailable
from jobflow.events import JobMoved, ServerAway, ServerBack
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.lanes import states_of
from tests.support.parts import Parts, failing, parts_on
from tests.support.rows import add_job, ago, row_of

LATE = OVERDUE.total_seconds() + 5


def no_sweep(parts: Parts) -> None:
    parts.scheduler._next_round = boottime() + 60


def sweep(parts: Parts) -> None:
    parts.scheduler._next_round = 0.0


async def open_lanes(parts: Parts, queue: str = "default") -> None:
    no_sweep(parts)
    parts.scheduler.fill(queue, dict.fromkeys(range(10), ""))
    await parts.scheduler.tick()
    assert set((await states_of(parts.broker, queue)).values()) == {"+"}


async def pop(parts: Parts, want: int = 1_000) -> list[UUID]:
    return (await parts.broker.pop("default", parts.lease.now() + timedelta(seconds=1), want)).ids


# --- filling ---


async def test_a_cold_lane_is_filled_in_order_and_opened(parts: Parts) -> None:
    ids = [(await parts.insert())[0] for _ in range(5)]
    await parts.insert(1, priority=3)
    no_sweep(parts)
    parts.scheduler.fill("default", {5: ""})
    waiter = asyncio.create_task(parts.agenda.wake.wait(10))
    await asyncio.sleep(0)
    assert 0 < await parts.scheduler.tick() <= 60
    assert await pop(parts) == ids
    assert (await states_of(parts.broker, "default"))[5] == "+"
    assert (await states_of(parts.broker, "default"))[3] == ""
    await asyncio.wait_for(waiter, 5)


async def test_asking_for_a_fill_wakes_it(parts: Parts) -> None:
    waiter = asyncio.create_task(parts.scheduler.wake.wait(10))
    await asyncio.sleep(0)
    parts.scheduler.fill("default", {5: ""})
    await asyncio.wait_for(waiter, 5)


@pytest.mark.parametrize("before", [0, 60], ids=["newer than the page", "older than the page"])
async def test_a_job_whose_push_was_refused_while_its_lane_opened_is_found_without_the_sweep(
    before: float, parts: Parts, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, then another commit, then its push (refused: cold), then our FILL opens the lane."""
    await parts.insert(3)
    no_sweep(parts)
    fill, late = parts.broker.fill, []

    async def staged(*args: Any) -> bool:
        late.append(await add_job(database, run_at=ago(before)))
        pushed = await parts.broker.push("default", [Entry(5, ago(before), late[-1])])
        assert (pushed.added, pushed.cold) == (0, [5])
        return await fill(*args)

    monkeypatch.setattr(parts.broker, "fill", staged)
    parts.scheduler.fill("default", {5: ""})
    await parts.scheduler.tick()
    assert len(late) == 1
    assert late[0] in await pop(parts)


async def test_a_job_that_moved_to_now_while_its_lane_opened_does_not_wait_for_its_old_time(
    parts: Parts, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, then a retry by a person, its push (refused: cold), and our FILL brings the time that was read."""
    (id,) = await parts.insert(run_at=ago(-3600))
    no_sweep(parts)
    fill = parts.broker.fill

    async def staged(*args: Any) -> bool:
        await database.execute("UPDATE jobs SET run_at = $1 WHERE id = $2", ago(0), id)
        assert (await parts.broker.push("default", [Entry(5, ago(0), id)])).cold == [5]
        return await fill(*args)

    monkeypatch.setattr(parts.broker, "fill", staged)
    parts.scheduler.fill("default", {5: ""})
    await parts.scheduler.tick()
    assert await pop(parts) == [id]


async def test_a_lane_that_somebody_else_moved_is_left_to_him(parts: Parts) -> None:
    (id,) = await parts.insert()
    await parts.broker.fill("default", 5, "", False, b"")  # opened by another process; our job's push is still to come
    no_sweep(parts)
    parts.scheduler.fill("default", {5: ""})
    await parts.scheduler.tick()
    assert await pop(parts) == []
    assert await parts.push([id]) == 1


async def test_a_spilled_lane_is_refilled_in_order(store: Store, redis_url: str) -> None:
    broker = Broker(redis_url, lane_size=20, pool_size=4)
    async with parts_on(store, broker) as parts:
        ids = [(await parts.insert())[0] for _ in range(95)]
        found: list[UUID] = []
        for _ in range(60):
            popped = await broker.pop("default", parts.lease.now() + timedelta(seconds=1), 7)
            found += popped.ids
            no_sweep(parts)
            if popped.fills:
                parts.scheduler.fill("default", popped.fills)
            await parts.scheduler.tick()
            assert await database_free(broker) <= 20
            # One fill at a time holds a lease of a second on Redis; here nobody else is there.
            await parts.broker._redis.hdel("{jf:default}:st", *(f"l{p}" for p in range(10)))
            if len(found) == 95:
                break
        assert found == ids
        late = await parts.insert()
        await parts.push(late)
        assert await pop(parts) == late, "open again"
    await broker.close()


async def database_free(broker: Broker) -> int:
    return int(await broker._redis.zcard("{jf:default}:r5"))


# --- the sweep ---


async def test_the_sweep_finds_jobs_that_were_never_pushed(parts: Parts, database: Connection) -> None:
    await open_lanes(parts)
    lost = await add_job(database, run_at=ago(LATE))
    await add_job(database, run_at=ago(0))  # its push is on its way, surely
    await parts.insert(0)
    parts.agenda.know({"default": False})
    await database.execute("INSERT INTO queues VALUES ('default') ON CONFLICT DO NOTHING")
    while parts.agenda.next(parts.lease.now()):
        pass
    sweep(parts)
    wait = await parts.scheduler.tick()
    assert wait < 0.1, "where one was lost there may be more"
    assert parts.agenda.next(parts.lease.now()) == "default"
    assert await pop(parts) == [lost]
    sweep(parts)
    await parts.scheduler.tick()
    assert await pop(parts) == [lost], "popped and not claimed: it comes back"


async def test_the_sweep_finds_a_job_whose_move_to_now_was_never_pushed(parts: Parts, database: Connection) -> None:
    await open_lanes(parts)
    await database.execute("INSERT INTO queues VALUES ('default') ON CONFLICT DO NOTHING")
    moved, waits = [await add_job(database, run_at=ago(LATE)) for _ in range(2)]
    await parts.broker.push("default", [Entry(5, ago(-3600), moved), Entry(5, ago(LATE), waits)])
    sweep(parts)
    assert await parts.scheduler.tick() < 0.1, "where one was lost there may be more"
    assert sorted(await pop(parts)) == sorted([moved, waits])


async def test_a_row_that_is_committed_long_after_its_time_is_found(
    parts: Parts, database: Connection, database_url: str
) -> None:
    await parts.insert(1, run_at=None)
    await open_lanes(parts)
    await pop(parts)
    other = await asyncpg.connect(database_url, ssl=False)
    try:
        transaction = other.transaction()
        await transaction.start()
        id = await add_job(other, run_at=ago(60))
        sweep(parts)
        await parts.scheduler.tick()
        assert id not in await pop(parts)
        await transaction.commit()
    finally:
        await other.close()
    sweep(parts)
    await parts.scheduler.tick()
    assert id in await pop(parts)


async def test_it_sweeps_page_by_page_and_begins_again(
    parts: Parts, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_PAGE", 3)
    await parts.insert(1)
    await open_lanes(parts)
    await pop(parts)
    ids = [await add_job(database, run_at=ago(LATE + 20 - n)) for n in range(8)]
    found: list[UUID] = []
    for expected in (ids[:3], ids[3:6], ids[6:], ids[:3]):
        sweep(parts)
        await parts.scheduler.tick()
        found = await pop(parts)
        assert found == expected


async def test_a_swept_queue_whose_lanes_are_cold_is_filled(parts: Parts, database: Connection) -> None:
    """After a flush nobody may have popped yet."""
    await parts.insert(0)
    await database.execute("INSERT INTO queues VALUES ('default')")
    id = await add_job(database, run_at=ago(LATE))
    await parts.scheduler.tick()
    await parts.scheduler.tick()
    assert await pop(parts) == [id]


async def test_queues_that_others_made_are_known_after_a_round(parts: Parts, store: Store) -> None:
    await store.add_queues(["elsewhere"])
    await parts.scheduler.tick()
    assert "elsewhere" in parts.agenda.queues


# --- the rest of a round ---


async def test_jobs_that_came_too_late_are_cancelled(parts: Parts, database: Connection) -> None:
    expired = await add_job(database, expires_at=ago(1))
    retrying = await add_job(database, "failed", expires_at=ago(1), run_at=ago(-60))
    fresh = await add_job(database, expires_at=ago(-60))
    await parts.scheduler.tick()
    for id, before in ((expired, "pending"), (retrying, "failed")):
        row = await row_of(database, id)
        assert row is not None
        assert (row["status"], row["cancel_reason"][:7]) == ("cancelled", "expired")
        assert JobMoved(id, "expired", before, "cancelled") in [
            JobMoved(e.id, e.action, e.before, e.after) for e in parts.of(JobMoved)
        ]
    row = await row_of(database, fresh)
    assert row is not None
    assert row["status"] == "pending"


async def test_rounds_are_about_a_second_apart(parts: Parts) -> None:
    began = boottime()
    assert 0 < await parts.scheduler.tick() <= 1.3
    assert began + 0.7 <= parts.scheduler._next_round <= boottime() + 1.3
    no_sweep(parts)
    calls = failing(parts.scheduler._store, "list_queues", AssertionError("too early"))
    assert 0 < await parts.scheduler.tick() <= 60
    calls()


async def test_without_redis_it_goes_on_and_says_so_once(
    parts: Parts, dead_broker: Broker, database: Connection
) -> None:
    parts.scheduler._broker = dead_broker
    await parts.insert(0)
    await database.execute("INSERT INTO queues VALUES ('default')")
    late, expired = await add_job(database, run_at=ago(LATE)), await add_job(database, expires_at=ago(1))
    for _ in range(3):
        parts.scheduler.fill("default", {5: ""})
        sweep(parts)
        await parts.scheduler.tick()
    assert len(parts.of(ServerAway)) == 1
    row = await row_of(database, expired)
    assert row is not None
    assert row["status"] == "cancelled"
    await database.execute("DELETE FROM jobs WHERE id = $1", late)
    sweep(parts)
    await parts.scheduler.tick()
    assert not parts.health.broker_up, "a round without a word to Redis is no sign that it is back"
    assert parts.of(ServerBack) == []


async def test_without_postgres_it_raises_and_tries_again(parts: Parts) -> None:
    mend = failing(parts.scheduler._store, "list_queues", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await parts.scheduler.tick()
    mend()
    sweep(parts)
    assert await parts.scheduler.tick() > 0


async def test_what_was_read_a_while_ago_does_not_move_a_job_back(
    parts: Parts, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's read and its push the job ran, failed, and was pushed for its retry."""
    await open_lanes(parts)
    id = await add_job(database, run_at=ago(LATE))
    read, later = parts.scheduler._store.page_lanes, ago(-60)

    async def staged(*args: Any) -> Any:
        rows = await read(*args)
        await database.execute("UPDATE jobs SET run_at = $1 WHERE id = $2", later, id)
        await parts.broker.push("default", [Entry(5, later, id)])
        return rows

    monkeypatch.setattr(parts.scheduler._store, "page_lanes", staged)
    sweep(parts)
    await parts.scheduler.tick()
    assert await pop(parts) == [], "it would be claimed too early, refused, and found again only by the next sweep"
