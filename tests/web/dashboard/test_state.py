"""The numbers of the overview, read together."""

from __future__ import annotations

from jobflow.lifecycle import Status
from jobflow.overview import Queue
from jobflow.pool import Connection
from jobflow.store import Store
from jobflow.web.dashboard.state import MINUTES, PRESSING, State, read_state
from tests.support.rows import add_job, add_worker, ago


async def test_sums_over_queues_and_workers(store: Store, database: Connection) -> None:
    await database.execute("INSERT INTO queues (name) VALUES ('a'), ('b')")
    await add_job(database, "pending", queue="a", run_at=ago(100))
    await add_job(database, "pending", queue="b", run_at=ago(5))
    await add_job(database, "failed", queue="b", run_at=ago(-50))
    await add_worker(database, concurrency=7)
    await add_worker(database, concurrency=5, lease=-1)
    await add_worker(database, concurrency=3, state="stopped")
    state = await read_state(store)

    assert {status: count for status, count in state.by_status.items() if count} == {
        Status.PENDING: 2,
        Status.FAILED: 1,
    }
    assert list(state.by_status) == list(Status)
    assert state.ready == 2
    assert state.oldest is not None
    assert 99 < state.oldest < 160
    assert state.slots == 7


async def test_an_hour_of_minutes_with_the_empty_ones(store: Store, database: Connection) -> None:
    await database.execute(
        "INSERT INTO counter_minutes SELECT date_trunc('minute', now()) - make_interval(mins => $1), 'a', '', 'pending', 3",
        59,
    )
    await database.execute(
        "INSERT INTO counter_minutes SELECT date_trunc('minute', now()), 'b', 'processing', after, n "
        "FROM (VALUES ('completed', 5), ('failed', 2), ('dead_letter', 1)) AS m (after, n)"
    )
    minutes = (await read_state(store)).minutes

    assert len(minutes) == MINUTES
    assert minutes[0].entered in (0, 3)  # a minute may have passed meanwhile
    assert sum(m.completed for m in minutes) == 5
    assert sum(m.failed for m in minutes) == 2
    assert sum(m.dead for m in minutes) == 1


async def test_without_anything_there_is_nothing(store: Store) -> None:
    state = await read_state(store)
    assert (state.ready, state.oldest, state.slots) == (0, None, 0)
    assert sum(state.by_status.values()) == 0


def test_the_overview_shows_the_queues_that_wait_longest_by_name() -> None:
    def queue(name: str, age: float | None) -> Queue:
        return Queue(
            name=name, by_status={}, ready=0, oldest_ready_age=age, in_per_second=0, out_per_second=0, paused=False,
            paused_reason=None, paused_until=None, created_at=ago(0),
        )  # fmt: skip

    queues = [queue(f"q{n:02}", None if n < 8 else 50.0 - n) for n in range(20)]
    assert [queue.name for queue in State(queues, [], []).pressing] == [f"q{n:02}" for n in range(8, 8 + PRESSING)]
