from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobflow.errors import NotFound
from jobflow.lifecycle import Status
from jobflow.overview import build_queues, build_totals, build_worker
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.rows import add_job, add_worker, ago, new_job

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NONE = dict.fromkeys((status.value for status in Status), 0)


def row(**values: Any) -> dict[str, Any]:
    return values


def test_totals_add_up_queues_and_tell_what_is_due() -> None:
    counts = [
        row(queue="a", status="pending", n=3),
        row(queue="b", status="pending", n=4),
        row(queue="a", status="failed", n=5),
        row(queue="a", status="scheduled", n=2),
        row(queue="b", status="completed", n=9),
    ]
    due = [row(queue="a", status="failed", n=2), row(queue="a", status="scheduled", n=1)]
    totals = build_totals(counts, due)
    assert totals.by_status == NONE | {"pending": 7, "failed": 5, "scheduled": 2, "completed": 9}
    assert (totals.total, totals.ready, totals.retrying) == (23, 10, 3)


def test_totals_of_nothing() -> None:
    totals = build_totals([], [])
    assert (totals.by_status, totals.total, totals.ready, totals.retrying) == (NONE, 0, 0, 0)


def test_retrying_is_never_negative_though_the_two_reads_differ() -> None:
    totals = build_totals([row(queue="a", status="failed", n=1)], [row(queue="a", status="failed", n=2)])
    assert totals.retrying == 0


def test_each_queue_gets_its_own_numbers() -> None:
    def setting(name: str) -> dict[str, Any]:
        return row(name=name, paused=False, paused_reason=None, paused_until=None, created_at=NOW)

    queues = build_queues(
        settings=[setting("a"), setting("b")],
        counts=[row(queue="a", status="pending", n=3), row(queue="gone", status="pending", n=9)],
        due=[row(queue="a", status="scheduled", n=1)],
        oldest=[row(queue="a", age=1.5)],
        rates=[row(queue="a", entered=2.0, finished=None)],
    )
    assert [
        (q.name, q.by_status["pending"], q.ready, q.oldest_ready_age, q.in_per_second, q.out_per_second) for q in queues
    ] == [("a", 3, 4, 1.5, 2.0, 0.0), ("b", 0, 0, None, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("state", "valid", "late"),
    [
        ("alive", True, False),
        ("alive", False, True),
        ("draining", False, True),
        ("lost", False, False),
        ("stopped", False, False),
    ],
)
def test_a_process_is_late_when_its_lease_lapsed_and_nobody_has_marked_it_yet(
    state: str, valid: bool, late: bool
) -> None:
    worker = build_worker(
        row(
            id=new_job().id, kind="process", host="h", pid=1, version="0", state=state, concurrency=1, running=0,
            types=["a"], started_at=NOW, beat_at=NOW, lease_until=NOW, lease_valid=valid,
        )
    )  # fmt: skip
    assert late == worker.late


async def test_totals_are_exact_before_and_after_folding(store: Store, database: Connection) -> None:
    for n, status in enumerate(Status):
        for _ in range(n + 1):
            await add_job(database, status, run_at=ago(-60))
    await add_job(database, "failed", run_at=ago(1))
    await add_job(database, "scheduled", run_at=ago(1), queue="other")
    sql = await database.fetch(
        "SELECT status, count(*) AS n FROM jobs GROUP BY 1 UNION ALL SELECT 'completed', count(*) FROM jobs_done"
    )
    expected = {r["status"]: r["n"] for r in sql}
    for _ in range(2):
        totals = await store.totals()
        assert (expected, sum(expected.values())) == (totals.by_status, totals.total)
        assert (expected["pending"] + 2, expected["failed"] - 1) == (totals.ready, totals.retrying)
        await store.fold_counters()


async def test_queues_tell_depth_age_and_pause(store: Store, database: Connection) -> None:
    await store.add_queues(["busy", "empty", "later", "paused"])
    for priority, age in [(5, 30), (9, 200), (0, 5)]:
        await add_job(database, queue="busy", priority=priority, run_at=ago(age))
    await add_job(database, "failed", queue="busy", run_at=ago(50))
    await add_job(database, "processing", queue="busy", run_at=ago(999))
    await add_job(database, "scheduled", queue="later", run_at=ago(-60))
    await database.execute(
        "UPDATE queues SET paused_at = now(), paused_reason = 'why', paused_until = $1 WHERE name = 'paused'", ago(-60)
    )
    queues = {queue.name: queue for queue in await store.queues()}
    assert list(queues) == ["busy", "empty", "later", "paused"]
    assert {name: q.ready for name, q in queues.items()} == {"busy": 4, "empty": 0, "later": 0, "paused": 0}
    age = queues["busy"].oldest_ready_age
    assert age is not None
    assert 199 < age < 230
    assert [queues[name].oldest_ready_age for name in ("empty", "later", "paused")] == [None] * 3
    assert queues["later"].by_status == NONE | {"scheduled": 1}
    assert (queues["paused"].paused, queues["paused"].paused_reason) == (True, "why")
    assert (await store.queue("busy")).name == "busy"
    with pytest.raises(NotFound, match="nowhere"):
        await store.queue("nowhere")


async def test_rates_are_those_of_the_last_whole_minute(store: Store, database: Connection) -> None:
    await store.add_queues(["q"])
    # The minute that goes on must not count, nor the one before the last.
    await database.execute(
        "INSERT INTO counter_minutes SELECT date_trunc('minute', now()) - n * interval '1 min', 'q', b, a, k * 10 ^ n "
        "FROM generate_series(0, 2) n, (VALUES ('', 'pending', 6), ('', 'scheduled', 6), ('pending', 'processing', 30), "
        "('processing', 'completed', 3), ('processing', 'dead_letter', 3), ('pending', 'cancelled', 3), ('completed', '', 3)) v (b, a, k)"
    )
    while True:
        (queue,) = await store.queues()
        minute = await database.fetchval("SELECT max(minute) = date_trunc('minute', now()) FROM counter_minutes")
        if minute:
            break
        await database.execute("UPDATE counter_minutes SET minute = minute + interval '1 min'")
    assert (queue.in_per_second, queue.out_per_second) == (120 / 60, 90 / 60)


async def test_processes_are_listed_living_ones_first(store: Store, database: Connection) -> None:
    lost = await add_worker(database, state="lost")
    late = await add_worker(database, lease=-1)
    stopped = await add_worker(database, state="stopped")
    alive = await add_worker(database, state="draining", types=["a", "b"])
    workers = await store.workers()
    assert {late, alive} == {worker.id for worker in workers[:2]}
    assert {lost, stopped} == {worker.id for worker in workers[2:]}
    assert {late} == {worker.id for worker in workers if worker.late}
    assert next(list(worker.types) for worker in workers if worker.id == alive) == ["a", "b"]


async def test_any_number_of_due_jobs_is_counted_to_the_last(store: Store, database: Connection) -> None:
    """Beyond 10,000 those that are not due are counted and taken from the total."""
    await database.execute("INSERT INTO queues (name) VALUES ('many')")
    for status, due, later in (("scheduled", 10_050, 30), ("failed", 10_000, 7)):
        await database.execute(
            "INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload) "
            "SELECT gen_random_uuid(), 'many', 't', 5, $1, 1, now() + make_interval(mins => (n > $2)::int * 10 - 1), 1, now(), now(), '{}' "
            "FROM generate_series(1, $2 + $3::int) n",
            *(status, due, later),
        )
        await database.execute(
            "INSERT INTO counter_deltas (queue, before, after, n) VALUES ('many', '', $1, $2)", status, due + later
        )
    queue = await store.queue("many")
    assert (queue.ready, queue.by_status["scheduled"], queue.by_status["failed"]) == (20_050, 10_080, 10_007)
    assert (await store.totals()).retrying == 7
