"""Takes what is due, once, in order, as much as there are slots; with Redis or without."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobflow.broker import Broker, Entry
from jobflow.engine import agenda, scheduler
from jobflow.engine import fetcher as module
from jobflow.engine.agenda import POLL
from jobflow.engine.lease import boottime
from jobflow.errors import AnswerLost, StoreUnavailable
from jobflow.events import ServerAway, ServerBack
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.parts import Parts, failing, losing, parts_on
from tests.support.rows import add_job, ago, status_of
from tests.support.waiting import until


def taken(parts: Parts) -> list[UUID]:
    """Ids in the order in which workers get them."""
    return [supervision.run.id for supervision in parts.slots.inbox.clear()]


async def fill(parts: Parts, *priorities: int) -> None:
    """Open the lanes and bring what is in Postgres."""
    parts.scheduler._next_round = boottime() + 60  # no sweep
    parts.scheduler.fill("default", dict.fromkeys(priorities or range(10), ""))
    await parts.scheduler.tick()
    await parts.register()  # for the clock: what was inserted is due by now


async def drained(parts: Parts) -> list[UUID]:
    while await parts.fetcher.tick() == 0:
        pass
    return taken(parts)


# --- with Redis ---


async def test_it_takes_what_is_due_in_order_and_no_more_than_there_are_slots(
    parts: Parts, database: Connection
) -> None:
    ids = [(await parts.insert())[0] for _ in range(12)]
    await fill(parts)
    assert await drained(parts) == ids[:10]
    assert parts.slots.free == 0
    assert (
        await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'processing' AND locked_by = $1", parts.me)
        == 10
    )
    parts.slots.release([s.run for s in list(parts.slots.runs.values())[:1]])
    assert await drained(parts) == ids[10:11]


async def test_a_job_that_two_lanes_name_runs_once(parts: Parts) -> None:
    (id,) = await parts.insert()
    entries = [Entry(priority, parts.lease.now() - timedelta(seconds=1), id) for priority in (2, 5)]
    await fill(parts)
    assert (await parts.broker.push("default", entries)).added == 2
    assert await drained(parts) == [id]


async def test_no_more_than_half_of_the_slots_at_once(parts: Parts) -> None:
    await parts.insert(12)
    await fill(parts)
    assert await parts.fetcher.tick() == 0
    assert len(taken(parts)) == 5


async def test_two_fetchers_share_the_slots(parts: Parts) -> None:
    await parts.insert(60)
    await fill(parts)
    other = parts.make_fetcher("fetcher-1")
    seen: list[UUID] = []
    for _ in range(30):
        await asyncio.gather(parts.fetcher.tick(), other.tick())
        assert len(parts.slots.runs) <= 10
        assert parts.slots.free == 10 - len(parts.slots.runs)
        seen += taken(parts)
        parts.slots.release([s.run for s in parts.slots.runs.values()])
    assert len(seen) == len(set(seen)) == 60
    await other._store.release()


async def test_with_all_slots_taken_it_sleeps_until_one_is_freed(parts: Parts) -> None:
    await parts.insert(30)
    await fill(parts)
    await drained(parts)
    parts.agenda.due("default", parts.lease.now() - timedelta(seconds=5))
    parts.agenda._poll_at = parts.lease.now() - timedelta(seconds=5)
    assert await parts.fetcher.tick() == POLL, "due jobs must not make it spin"
    waiter = asyncio.create_task(parts.fetcher.wake.wait(10))
    await asyncio.sleep(0)
    parts.slots.release([next(iter(parts.slots.runs.values())).run])
    await asyncio.wait_for(waiter, 5)


async def test_what_was_popped_ahead_is_claimed_when_slots_are_free_and_no_sooner(
    parts: Parts, database: Connection
) -> None:
    ids = await parts.insert(30)
    await fill(parts)
    running = await drained(parts)
    runs = [supervision.run for supervision in parts.slots.runs.values()]
    assert len(running) == 10
    parts.slots.expect(runs[:3])  # their endings are on their way
    assert await parts.fetcher.tick() == 0
    assert len((await parts.broker.pop("default", parts.lease.now(), 30)).ids) == 30 - 10 - 3
    for _ in range(3):
        assert await parts.fetcher.tick() == POLL
    claimed = "SELECT count(*) FROM jobs WHERE status = 'processing'"
    assert await database.fetchval(claimed) == 10
    parts.slots.release(runs[:2])
    assert await parts.fetcher.tick() == 0
    assert await parts.fetcher.tick() == POLL
    parts.slots.release(runs[2:3])
    assert await parts.fetcher.tick() == 0
    assert [*running, *taken(parts)] == ids[:13]
    assert await database.fetchval(claimed) == 13
    assert (parts.slots.free, parts.slots.promise(9)) == (0, 0)


async def test_one_claim_takes_what_falls_free_together(parts: Parts) -> None:
    ids = await parts.insert(30)
    await fill(parts)
    running = await drained(parts)
    runs = [supervision.run for supervision in parts.slots.runs.values()]
    parts.slots.expect(runs[:4])
    parts.slots.release(runs[:1])
    assert await parts.fetcher.tick() == 0, "four are chosen"
    assert await parts.fetcher.tick() == POLL
    assert (taken(parts), parts.slots.free) == ([], 1), "and the one that could be is not claimed alone"
    parts.slots.release(runs[1:4])
    assert await parts.fetcher.tick() == 0
    assert running + taken(parts) == ids[:14]


async def test_while_slots_are_taken_redis_may_be_away_and_nothing_spins(parts: Parts, dead_broker: Broker) -> None:
    ids = await parts.insert(12)
    await fill(parts)
    await drained(parts)
    runs = [supervision.run for supervision in parts.slots.runs.values()]
    live, parts.fetcher._broker = parts.fetcher._broker, dead_broker
    parts.agenda.notice("default")
    parts.slots.expect(runs[:3])
    for _ in range(3):
        assert await parts.fetcher.tick() == POLL
    assert not parts.health.broker_up
    parts.fetcher._broker = live
    parts.slots.release(runs)
    assert await drained(parts) == ids[10:], "the queue is still on the agenda"


async def test_without_news_it_sleeps_until_the_next_job_falls_due(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "POLL", 60.0)
    await parts.insert(1, delay=30.0)
    await fill(parts)
    assert await parts.fetcher.tick() == 0
    assert 0 < await parts.fetcher.tick() <= 30


async def test_a_lane_that_runs_low_is_filled(parts: Parts) -> None:
    ids = await parts.insert(3)
    parts.scheduler._next_round = boottime() + 60
    assert await parts.fetcher.tick() == 0
    assert taken(parts) == []
    await parts.scheduler.tick()
    assert sorted(await drained(parts)) == sorted(ids)


# --- who may claim ---


async def test_who_is_not_trusted_takes_nothing(parts: Parts, database: Connection, broker: Broker) -> None:
    (id,) = await parts.insert()
    await fill(parts)
    parts.lease.trust_until = boottime() - 1
    assert 0 < await parts.fetcher.tick() < 1
    assert await status_of(database, id) == "pending"
    assert (await broker.pop("default", parts.lease.now(), 1)).ids == [id], "it is still in its lane"


async def test_trust_that_ends_between_pop_and_claim_is_noticed(
    parts: Parts, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = await parts.insert()
    await fill(parts)
    pop = parts.broker.pop

    async def slow(*args: Any) -> Any:
        popped = await pop(*args)
        assert popped.ids == [id]
        parts.lease.trust_until = boottime() - 1
        return popped

    monkeypatch.setattr(parts.broker, "pop", slow)
    await parts.fetcher.tick()
    assert await status_of(database, id) == "pending"
    assert parts.slots.free == 10


async def test_postgres_refuses_a_process_that_was_marked_lost_or_whose_lease_lapsed(
    parts: Parts, database: Connection
) -> None:
    ids = await parts.insert(2)
    await fill(parts)
    await database.execute("UPDATE workers SET state = 'lost'")
    assert await drained(parts) == []
    await database.execute("UPDATE workers SET state = 'alive', lease_until = now() - interval '1 second'")
    await parts.push(ids)
    parts.agenda.notice("default")
    assert await drained(parts) == []
    assert parts.slots.free == 10
    await database.execute("UPDATE workers SET lease_until = now() + interval '1 minute'")
    await parts.push(ids)
    parts.agenda.notice("default")
    assert sorted(await drained(parts)) == sorted(ids)


async def test_after_a_lost_answer_it_waits_for_an_audit(parts: Parts, database: Connection) -> None:
    ids = await parts.insert(6)
    await fill(parts)
    mend = losing(parts.fetcher._store, "claim_jobs")
    with pytest.raises(AnswerLost):
        await parts.fetcher.tick()
    mend()
    assert parts.shaken == 1
    assert parts.slots.free == 10
    assert parts.fetcher.claiming_since is None
    assert not parts.health.store_up
    assert await parts.fetcher.tick() > 0
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'processing'") == 5, (
        "claimed, and unknown here"
    )
    assert taken(parts) == []
    parts.lease.audited = boottime()
    assert await drained(parts) == ids[5:]


async def test_a_claim_on_its_way_is_told_to_the_audit(parts: Parts) -> None:
    await parts.insert()
    await fill(parts)
    claim, seen = parts.fetcher._store.claim_jobs, []

    async def watched(*args: Any) -> Any:
        seen.append(parts.fetcher.claiming_since)
        return await claim(*args)

    parts.fetcher._store.claim_jobs = watched  # type: ignore[method-assign]
    before = boottime()
    await parts.fetcher.tick()
    assert before <= seen[0] <= boottime()
    assert parts.fetcher.claiming_since is None


async def test_a_refused_claim_leaks_no_slot(parts: Parts, database: Connection) -> None:
    ids = await parts.insert(3)
    await fill(parts)
    await database.execute("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE id = $1", ids[0])
    await database.execute("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE id = $1", ids[1])
    assert await drained(parts) == ids[2:]
    assert parts.slots.free == 9


async def test_a_queue_that_was_paused_meanwhile_gives_nothing(parts: Parts, database: Connection) -> None:
    (id,) = await parts.insert()
    await fill(parts)
    await database.execute("UPDATE queues SET paused_at = now()")
    assert await drained(parts) == []
    assert await status_of(database, id) == "pending"


async def test_while_postgres_is_away_slots_stay_free_and_the_queue_is_not_forgotten(parts: Parts) -> None:
    ids = await parts.insert(2)
    await fill(parts)
    mend = failing(parts.fetcher._store, "claim_jobs", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await parts.fetcher.tick()
    mend()
    assert parts.shaken == 0, "nothing was sent, so nothing can have been forgotten"
    assert parts.slots.free == 10
    assert parts.of(ServerAway) == [ServerAway("postgres", "away")]
    await parts.push(ids)
    assert sorted(await drained(parts)) == sorted(ids)


async def test_a_stale_place_in_a_lane_does_not_make_a_retry_late(parts: Parts) -> None:
    """Read by a sweep while it was due, then it failed and waits for its retry, then the sweep pushes what it has read."""
    (id,) = await parts.insert(1, delay=2.0)
    await fill(parts)
    await parts.broker.push("default", [Entry(5, parts.lease.now() - timedelta(seconds=6), id)], fresh=False)
    assert await drained(parts) == []

    async def found() -> list[UUID]:
        parts.agenda.notice("default")
        return await drained(parts)

    # In vain, if nobody finds it but the sweep, which looks for what is five seconds late and does not run here.
    assert await until(found) == [id]


# --- handed over by whoever has just committed them ---


async def hand(parts: Parts, *ids: UUID, queue: str = "default") -> None:
    """To a fetcher that rests, since nothing waits."""
    while parts.agenda.next(parts.lease.now()) is not None:
        pass
    parts.fetcher.wake._set = False  # left by news that it knows by now
    resting = asyncio.create_task(parts.fetcher.wake.wait(60))
    await asyncio.sleep(0)
    free = parts.slots.free
    assert parts.handoff.offer(queue, [Entry(5, parts.lease.now(), id) for id in ids])
    await asyncio.wait_for(resting, 10)
    assert parts.slots.free == free - len(ids)


@pytest.fixture
def no_redis(parts: Parts) -> None:
    """Nobody may ask it."""
    for method in ("pop", "push", "fill"):
        failing(parts.broker, method, AssertionError(f"Redis was asked: {method}"))


@pytest.mark.usefixtures("no_redis")
async def test_what_is_handed_over_is_claimed_without_redis(parts: Parts, database: Connection) -> None:
    ids = await parts.insert(5)
    await parts.register()
    await hand(parts, *ids)
    assert await parts.fetcher.tick() == 0
    assert taken(parts) == ids, "all at once, in the order in which they were posted"
    assert parts.slots.free == 5
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE locked_by = $1", parts.me) == 5
    assert await parts.fetcher.tick() > 0, "that was all"


@pytest.mark.usefixtures("no_redis")
async def test_each_claim_of_what_is_handed_over_is_for_one_queue(parts: Parts) -> None:
    first, second = await parts.insert(2), await parts.insert(1, queue="other")
    await parts.register()
    await hand(parts, *first)
    await hand(parts, *second, queue="other")
    assert await parts.fetcher.tick() == 0
    assert await parts.fetcher.tick() == 0
    assert sorted(taken(parts)) == sorted(first + second)
    assert parts.slots.free == 7


@pytest.mark.usefixtures("no_redis")
@pytest.mark.parametrize("lost", [False, True])
async def test_a_failed_claim_of_what_was_handed_over_gives_its_slots_back(parts: Parts, lost: bool) -> None:
    ids = await parts.insert(3)
    await parts.register()
    await hand(parts, *ids)
    store = parts.fetcher._store
    mend = losing(store, "claim_jobs") if lost else failing(store, "claim_jobs", StoreUnavailable("away"))
    with pytest.raises(AnswerLost if lost else StoreUnavailable):
        await parts.fetcher.tick()
    mend()
    assert parts.slots.free == 10
    assert parts.shaken == lost
    assert parts.handoff.take() is None
    assert parts.of(ServerAway)[0].server == "postgres"


@pytest.mark.usefixtures("no_redis")
async def test_what_was_handed_over_and_is_gone_leaves_its_slot_free(parts: Parts, database: Connection) -> None:
    ids = await parts.insert(3)
    await parts.register()
    await database.execute("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE id = $1", ids[1])
    await hand(parts, *ids)
    assert await parts.fetcher.tick() == 0
    assert taken(parts) == [ids[0], ids[2]]
    assert parts.slots.free == 8


@pytest.mark.usefixtures("no_redis")
async def test_a_lease_that_lapses_before_the_fetcher_comes_claims_nothing(parts: Parts, database: Connection) -> None:
    (id,) = await parts.insert()
    await parts.register()
    await hand(parts, id)
    parts.lease.trust_until = boottime() - 1
    await parts.fetcher.tick()
    assert await status_of(database, id) == "pending"
    assert parts.slots.free == 10
    assert parts.handoff.take() is None


async def test_what_was_handed_over_in_vain_is_found_by_the_sweep(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parts.store.add_queues({"default"})
    await fill(parts)  # the lanes are open, and empty: no later fill brings it
    ids = await parts.insert(2)
    await parts.register()
    await hand(parts, *ids)
    mend = failing(parts.fetcher._store, "claim_jobs", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await parts.fetcher.tick()
    mend()
    parts.agenda.notice("default")
    assert await drained(parts) == []
    monkeypatch.setattr(scheduler, "OVERDUE", timedelta(0))
    parts.scheduler._next_round = 0.0
    await parts.scheduler.tick()
    assert sorted(await drained(parts)) == sorted(ids)


# --- without Redis ---


async def test_without_redis_it_asks_postgres(parts: Parts, dead_broker: Broker, database: Connection) -> None:
    ids = [(await parts.insert())[0] for _ in range(3)]
    late = await add_job(database, "scheduled", run_at=ago(-60))
    parts.fetcher._broker = dead_broker
    assert await parts.fetcher.tick() == 0
    assert taken(parts) == ids
    assert await status_of(database, late) == "scheduled"
    assert await status_of(database, ids[0]) == "processing"
    assert not parts.health.broker_up
    assert len(parts.of(ServerAway)) == 1


async def test_without_redis_the_oldest_runs_first(parts: Parts, dead_broker: Broker, database: Connection) -> None:
    ids = [await add_job(database, run_at=ago(seconds)) for seconds in (1, 3, 2)]
    parts.agenda.know({"default": False})
    parts.fetcher._broker = dead_broker
    await parts.fetcher.tick()
    assert set(taken(parts)) == set(ids)
    starts = await database.fetch("SELECT id FROM jobs WHERE status = 'processing' ORDER BY run_at")
    assert [row["id"] for row in starts] == [ids[1], ids[2], ids[0]]


async def test_without_redis_priorities_share(store: Store, broker: Broker, dead_broker: Broker) -> None:
    async with parts_on(store, broker, slots=400) as parts:
        place = {id: p for p in (0, 5, 9) for id in await parts.insert(400, priority=p)}
        parts.fetcher._broker = dead_broker
        for _ in range(2):
            await parts.fetcher.tick()
        shares = Counter(place[id] for id in taken(parts))
    assert sum(shares.values()) == 400
    assert shares[0] > shares[5] > shares[9] >= 1


async def test_without_redis_nobody_waits_for_a_row_that_is_held(
    parts: Parts, dead_broker: Broker, database: Connection
) -> None:
    ids = await parts.insert(2)
    parts.fetcher._broker = dead_broker
    async with database.transaction():
        await database.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", ids[0])
        await asyncio.wait_for(parts.fetcher.tick(), 10)
    assert taken(parts) == ids[1:]


async def test_without_redis_a_paused_queue_and_a_lapsed_lease_give_nothing(
    parts: Parts, dead_broker: Broker, database: Connection
) -> None:
    (id,) = await parts.insert()
    parts.fetcher._broker = dead_broker
    await database.execute("UPDATE queues SET paused_at = now()")
    await parts.fetcher.tick()
    await database.execute("UPDATE queues SET paused_at = NULL")
    await database.execute("UPDATE workers SET lease_until = now() - interval '1 second'")
    parts.agenda.notice("default")
    await parts.fetcher.tick()
    assert await status_of(database, id) == "pending"
    assert parts.slots.free == 10


async def test_without_redis_a_lost_answer_is_a_lost_answer(parts: Parts, dead_broker: Broker) -> None:
    await parts.insert()
    parts.fetcher._broker = dead_broker
    losing(parts.fetcher._store, "claim_jobs")
    with pytest.raises(AnswerLost):
        await parts.fetcher.tick()
    assert parts.shaken == 1
    assert parts.slots.free == 10


async def test_redis_is_asked_again_after_a_while(
    parts: Parts, dead_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parts.insert()
    await fill(parts)
    parts.seen.clear()
    monkeypatch.setattr(module, "AWAY", 3600.0)
    parts.fetcher._broker = dead_broker
    await parts.fetcher.tick()
    parts.fetcher._broker = parts.broker
    asked = []
    pop = parts.broker.pop

    async def counted(*args: Any) -> Any:
        asked.append(datetime.now(UTC))
        return await pop(*args)

    monkeypatch.setattr(parts.broker, "pop", counted)
    parts.agenda.notice("default")
    await parts.fetcher.tick()
    assert asked == [], "not for every claim: each try may take as long as its timeout"
    monkeypatch.setattr(module, "AWAY", 0.0)
    parts.agenda.notice("default")
    await parts.fetcher.tick()
    assert len(asked) == 1
    assert len(parts.of(ServerBack)) == 1
