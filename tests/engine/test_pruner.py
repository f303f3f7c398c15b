"""Days come before they are needed and go when they are old; nothing goes that should stay."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from jobflow.engine import pruner as module
from jobflow.engine.pruner import AHEAD, DAY, ROUND, Pruner
from jobflow.events import Event, Events, PartitionDropped, TransactionHeld
from jobflow.lifecycle import Status
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.rows import add_job, ago, history_of, id_of_day, status_of

NOW = time.time()
TODAY = int(NOW) // DAY
KEEP = {Status.COMPLETED: 7.0 * DAY, Status.CANCELLED: 30.0 * DAY, Status.DEAD_LETTER: 0.0}


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays the same day, even for a test that runs at midnight."""
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: NOW))


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
def pruner(store: Store, seen: list[Event]) -> Pruner:
    events = Events()
    events.subscribe(seen.extend)
    return Pruner(store=store, retention=KEEP, events=events)


async def completed(database: Connection, day: int, number: int = 0) -> object:
    finished = ago((TODAY - day) * DAY)
    return await add_job(
        database, "completed", id=id_of_day(day, number), finished_at=finished, created_at=finished, started_at=finished
    )


async def counts(store: Store) -> dict[str, int]:
    return {status: n for status, n in (await store.totals()).by_status.items() if n}


async def partition_of(database: Connection, id: object) -> str:
    return str(await database.fetchval("SELECT tableoid::regclass::text FROM jobs_done WHERE id = $1", id))


async def test_today_and_the_days_ahead_have_their_partitions(pruner: Pruner, store: Store) -> None:
    await pruner.prepare()
    assert await store.list_days() == list(range(TODAY, TODAY + AHEAD + 1))
    await pruner.prepare()
    assert await pruner.tick() == ROUND


async def test_rows_that_came_before_their_partition_are_moved_into_it(
    pruner: Pruner, store: Store, database: Connection
) -> None:
    id = await completed(database, TODAY)
    assert await partition_of(database, id) == "jobs_done_default"
    await pruner.prepare()
    assert await partition_of(database, id) == f"jobs_done_{TODAY}"


async def test_a_day_that_another_process_made_meanwhile_is_no_error(pruner: Pruner, store: Store) -> None:
    await store.create_day(TODAY)
    await pruner.prepare([], TODAY)
    assert len(await store.list_days()) == AHEAD + 1


async def test_a_busy_table_is_left_for_the_next_round(pruner: Pruner, store: Store, database: Connection) -> None:
    async with database.transaction():
        await database.execute("LOCK TABLE jobs_done_default IN SHARE MODE")
        await pruner.prepare()
        assert await store.list_days() == []
    await pruner.prepare()
    assert len(await store.list_days()) == AHEAD + 1


async def test_old_days_are_dropped_with_their_counts_and_young_ones_kept(
    pruner: Pruner, store: Store, database: Connection, seen: list[Event]
) -> None:
    for day in (TODAY - 20, TODAY - 8, TODAY - 7, TODAY - 1, TODAY):
        await store.create_day(day)
    ids = [await completed(database, day) for day in (TODAY - 20, TODAY - 7, TODAY - 1)]
    await pruner.tick()
    assert [e.table for e in seen if isinstance(e, PartitionDropped)] == [
        f"jobs_done_{TODAY - 20}",
        f"jobs_done_{TODAY - 8}",
    ]
    assert [await status_of(database, id) for id in ids] == [None, "completed", "completed"]
    assert await counts(store) == {"completed": 2}


async def test_a_late_finisher_of_an_old_day_is_kept(pruner: Pruner, store: Store, database: Connection) -> None:
    await store.create_day(TODAY - 20)
    id = await add_job(database, "completed", id=id_of_day(TODAY - 20), finished_at=ago(60))
    await pruner.tick()
    assert await status_of(database, id) == "completed"
    assert await counts(store) == {"completed": 1}


async def test_the_history_of_a_job_that_still_lives_outlasts_its_day(
    pruner: Pruner, store: Store, database: Connection
) -> None:
    await store.create_day(TODAY - 20)
    id = await add_job(database, "failed", id=id_of_day(TODAY - 20))
    insert = "INSERT INTO job_attempts (job_id, run_epoch, attempt, finished_at, outcome) VALUES ($1, 1, 1, now(), 'errored')"
    await database.execute(insert, id)
    await pruner.tick()
    assert await store.list_days() == list(range(TODAY, TODAY + AHEAD + 1))
    assert len(await history_of(database, id)) == 1


async def test_a_day_that_somebody_reads_is_dropped_later(
    pruner: Pruner, store: Store, database: Connection, seen: list[Event]
) -> None:
    await store.create_day(TODAY - 20)
    async with database.transaction():
        await database.fetch("SELECT * FROM jobs_done LIMIT 1")
        await pruner.tick()
        assert [e for e in seen if isinstance(e, PartitionDropped)] == []
    await pruner.tick()
    assert len([e for e in seen if isinstance(e, PartitionDropped)]) == 1


async def test_unfinished_ends_have_retentions_of_their_own(pruner: Pruner, store: Store, database: Connection) -> None:
    gone = await add_job(database, "cancelled", finished_at=ago(31 * DAY))
    kept = await add_job(database, "cancelled", finished_at=ago(29 * DAY))
    dead = await add_job(database, "dead_letter", finished_at=ago(1_000 * DAY))
    waiting = await add_job(database, "pending", created_at=ago(1_000 * DAY))
    await pruner.tick()
    states = [await status_of(database, id) for id in (gone, kept, dead, waiting)]
    assert states == [None, "cancelled", "dead_letter", "pending"], "0 keeps for ever"
    assert await counts(store) == {"cancelled": 1, "dead_letter": 1, "pending": 1}


async def test_completed_rows_without_a_partition_are_pruned_too(
    pruner: Pruner, store: Store, database: Connection
) -> None:
    old, young = await completed(database, TODAY - 20), await completed(database, TODAY - 3)
    await pruner.tick()
    assert await status_of(database, old) is None
    assert await status_of(database, young) == "completed"


async def test_nothing_is_dropped_when_completed_jobs_are_kept_for_ever(
    store: Store, database: Connection, seen: list[Event]
) -> None:
    await store.create_day(TODAY - 5_000)
    id = await completed(database, TODAY - 5_000)
    await Pruner(store=store, retention=dict.fromkeys(KEEP, 0.0), events=Events()).tick()
    assert await status_of(database, id) == "completed"


async def test_small_things_are_pruned(pruner: Pruner, database: Connection) -> None:
    await database.execute(
        "INSERT INTO idempotency_keys VALUES (0, 'old', '', '{}', now(), now() - interval '1 s'), "
        "(0, 'new', '', '{}', now(), now() + interval '1 h')"
    )
    await database.execute(
        "INSERT INTO counter_minutes VALUES (now() - interval '9 days', 'q', '', 'pending', 1), (now(), 'q', '', 'pending', 1)"
    )
    await pruner.tick()
    assert await database.fetchval("SELECT array_agg(key) FROM idempotency_keys") == ["new"]
    assert await database.fetchval("SELECT count(*) FROM counter_minutes") == 1


async def test_a_transaction_that_stays_open_is_told_until_it_ends(
    pruner: Pruner, database: Connection, seen: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD", 0.2)
    await pruner.tick()
    assert pruner.held is None
    async with database.transaction():
        await database.execute("SELECT txid_current(), pg_sleep(0.3)")
        await pruner.tick()
        assert pruner.held is not None
        assert pruner.held.pid == await database.fetchval("SELECT pg_backend_pid()")
        assert pruner.held.seconds > 0.2
        assert [event for event in seen if isinstance(event, TransactionHeld)] == [pruner.held]
    await pruner.tick()
    assert pruner.held is None
