"""Every move of a job, against a real Postgres: the state before, the call, the state after."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from jobflow import lifecycle
from jobflow.broker import Page
from jobflow.errors import AnswerLost, NotFound, Pruned
from jobflow.lifecycle import MOVES, Cause, Change, Failure, Run, Status
from jobflow.pool import Connection, Pool
from jobflow.statements import SQL
from jobflow.store import Store, day_of
from tests.support.rows import (
    NOBODY,
    add_job,
    add_worker,
    ago,
    history_of,
    id_of_day,
    new_job,
    real_counts,
    row_of,
    run_of,
    status_of,
)
from tests.support.waiting import until

BOOM = Failure("ValueError", "boom", "Traceback …")
TODAY = int(time.time()) // 86_400


async def statuses_of(connection: Connection, ids: dict[Any, UUID]) -> dict[Any, str | None]:
    return {name: await status_of(connection, id) for name, id in ids.items()}


async def running(connection: Connection, **columns: Any) -> Run:
    return await run_of(connection, await add_job(connection, "processing", **columns))


# ---- the way in -----------------------------------------------------------------------------------------------------


async def test_a_new_job_is_due_now_or_at_its_time_and_never_before_it_was_created(
    store: Store, database: Connection
) -> None:
    later = ago(-3600)
    jobs = {
        "at once": new_job(),
        "in the past": new_job(run_at=ago(3600)),
        "at a time": new_job(run_at=later),
        "delayed": new_job(delay=90.5),
    }
    created_at = await store.insert_jobs(list(jobs.values()))
    found = {}
    for name, job in jobs.items():
        row = await row_of(database, job.id)
        assert row is not None
        assert (created_at, created_at) == (row["created_at"], row["updated_at"])
        found[name] = (row["status"], row["run_at"])
    assert {
        "at once": ("pending", created_at),
        "in the past": ("pending", created_at),
        "at a time": ("scheduled", later),
        "delayed": ("scheduled", created_at + timedelta(seconds=90.5)),
    } == found


async def test_a_new_job_keeps_everything_it_came_with(store: Store) -> None:
    expires = ago(-7200)
    job = new_job(
        type="Grüße.1",
        queue="q_1",
        priority=0,
        payload='{"ключ": "⚙️ \\" \\\\ \\u007f", "n": 9007199254740993, "f": 0.1}'.encode(),
        max_attempts=100,
        timeout=0.1,
        expires_at=expires,
        unique_key="a'b\"{},\\",
        tags=("ein Tag", '{"', "日本", "a,b", "NULL"),
    )
    await store.insert_jobs([job])
    found = await store.get_job(job.id)
    assert (job.type, job.queue, 0, 100, 0.1, expires, job.unique_key) == (
        *(found.type, found.queue, found.priority, found.max_attempts, found.timeout, found.expires_at),
        found.unique_key,
    )
    assert list(job.tags) == list(found.tags)
    payload = bytes(found.payload).decode()
    assert "9007199254740993" in payload
    assert "ключ" in payload
    assert (found.attempt, found.rescues, found.worker, found.attempts) == (0, 0, None, [])


ALIKE = {"owner": 3, "queue": "q", "type": "t", "priority": 1, "max_attempts": 2, "timeout": 7.5}
OTHER = {"owner": 4, "queue": "r", "type": "u", "priority": 2, "max_attempts": 3, "timeout": 8.5}


@pytest.mark.parametrize("differs", [None, *ALIKE, "unique_key", "tags", "delay"])
async def test_jobs_of_one_statement_keep_what_is_theirs_however_alike_they_are(
    store: Store, database: Connection, differs: str | None
) -> None:
    others = OTHER | {"unique_key": "k", "tags": ("red",), "delay": 60.0}
    jobs = [new_job(**ALIKE) for _ in range(3)]
    if differs is not None:
        jobs[1] = new_job(**ALIKE | {differs: others[differs]})
    await store.insert_jobs(jobs)
    for job in jobs:
        row = await row_of(database, job.id) or {}
        assert {name: getattr(job, name) for name in ALIKE} == {name: row[name] for name in ALIKE}
        assert (job.unique_key, list(job.tags), job.status) == (row["unique_key"], row["tags"], row["status"])


async def test_jobs_are_inserted_all_or_none(store: Store, database: Connection) -> None:
    twin = new_job()
    with pytest.raises(asyncpg.UniqueViolationError):
        await store.insert_jobs([new_job(), twin, twin])
    with pytest.raises(asyncpg.DataError):
        await store.insert_jobs([new_job(), new_job(payload=b'{"a": "\\u0000"}')])
    assert await real_counts(database) == {}
    assert await database.fetchval("SELECT count(*) FROM counter_deltas") == 0


async def test_committed_jobs_are_found_wherever_they_are(store: Store, database: Connection) -> None:
    live, done = await add_job(database), await add_job(database, "completed")
    found = await store.find_jobs([live, done, uuid7()])
    expected = {id: (await row_of(database, id) or {})["created_at"] for id in (live, done)}
    assert expected == found


async def test_a_queue_is_added_once_and_tells_whether_it_is_paused_now(store: Store, database: Connection) -> None:
    await store.add_queues(["a", "b", "c"])
    await store.add_queues(["c", "d"])
    await database.execute("UPDATE queues SET paused_at = now() WHERE name IN ('a', 'b', 'c')")
    await database.execute("UPDATE queues SET paused_until = now() + interval '1 h' WHERE name = 'b'")
    await database.execute("UPDATE queues SET paused_until = now() - interval '1 s' WHERE name = 'c'")
    assert await store.list_queues() == {"a": True, "b": True, "c": False, "d": False}


# ---- claims ---------------------------------------------------------------------------------------------------------

NOT_CLAIMABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "waiting": ("waiting", {}),
    "processing": ("processing", {}),
    "dead_letter": ("dead_letter", {}),
    "cancelled": ("cancelled", {}),
    "completed": ("completed", {}),
    "not yet due": ("scheduled", {"run_at": ago(-86_400)}),
    "retry not yet due": ("failed", {"run_at": ago(-86_400)}),
    "expired": ("pending", {"expires_at": ago(1)}),
    "cancel requested": ("pending", {"cancel_requested_at": ago(1)}),
    "of another queue": ("pending", {"queue": "other"}),
}
CLAIMABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "pending": ("pending", {}),
    "due": ("scheduled", {}),
    "retry due": ("failed", {"attempt": 2}),
    "expires later": ("pending", {"expires_at": ago(-86_400)}),
}


async def test_a_claim_takes_what_is_due_and_nothing_else(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    ids = {
        name: await add_job(database, status, **columns)
        for name, (status, columns) in (NOT_CLAIMABLE | CLAIMABLE).items()
    }
    before = {name: await row_of(database, ids[name]) for name in NOT_CLAIMABLE}
    claimed = {run.id for run in await store.claim_jobs([*ids.values(), uuid7()], worker, "default")}
    assert set(CLAIMABLE) == {name for name, id in ids.items() if id in claimed}
    assert before == {name: await row_of(database, ids[name]) for name in NOT_CLAIMABLE}


async def test_a_claim_needs_a_living_worker_and_a_queue_that_is_not_paused(store: Store, database: Connection) -> None:
    workers = {state: await add_worker(database, state=state) for state in ("alive", "draining", "lost", "stopped")}
    workers |= {"lapsed": await add_worker(database, lease=-0.001), "unknown": uuid7()}
    claimed = {}
    for name, worker in workers.items():
        id = await add_job(database)
        claimed[name] = bool(await store.claim_jobs([id], worker, "default"))
    assert {**dict.fromkeys(workers, False), "alive": True} == claimed

    paused = {}
    for name, until_when in {"for good": None, "for an hour": ago(-3600), "until a moment ago": ago(1)}.items():
        await database.execute("DELETE FROM queues")
        await database.execute("INSERT INTO queues (name, paused_at, paused_until) VALUES ('q', now(), $1)", until_when)
        id = await add_job(database, queue="q")
        paused[name] = not await store.claim_jobs([id], workers["alive"], "q")
    assert paused == {"for good": True, "for an hour": True, "until a moment ago": False}


async def test_a_claim_counts_the_attempt_and_gives_the_worker_all_it_needs(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    id = await add_job(
        *(database, "failed"),
        attempt=2,
        max_attempts=9,
        rescues=1,
        timeout=12.5,
        priority=3,
        type="echo",
        payload='{"a": 1}',
    )
    await database.execute("DELETE FROM counter_deltas")
    before = await row_of(database, id) or {}
    started = datetime.now(UTC)
    (run,) = await store.claim_jobs([id, id], worker, "default")
    assert (worker, "echo", "default", 3, '{"a": 1}', 3, 9, 1, 12.5, before["run_at"]) == (
        *(run.worker, run.type, run.queue, run.priority, run.payload, run.attempt, run.max_attempts),
        *(run.rescues, run.timeout, run.run_at),
    )
    after = await row_of(database, id) or {}
    assert ("processing", worker, run.run_epoch, 3) == (
        *(after["status"], after["locked_by"], after["run_epoch"], after["attempt"]),
    )
    assert started - timedelta(seconds=1) < after["started_at"] == run.started_at == after["updated_at"]
    deltas = await database.fetch("SELECT queue, before, after, n FROM counter_deltas")
    assert [tuple(row) for row in deltas] == [("default", "failed", "processing", 1)]


async def test_the_epoch_is_the_clock_and_rises_even_when_the_clock_does_not(
    store: Store, database: Connection
) -> None:
    worker = await add_worker(database)
    fresh, ahead = await add_job(database), await add_job(database, run_epoch=2**60)
    low = time.time_ns() // 1000
    epochs = {run.id: run.run_epoch for run in await store.claim_jobs([fresh, ahead], worker, "default")}
    assert low - 2_000_000 < epochs[fresh] < low + 60_000_000  # µs
    assert epochs[ahead] == 2**60 + 1


async def test_a_claim_that_postgres_forgot_is_made_anew_with_a_larger_epoch(
    store: Store, database: Connection
) -> None:
    worker = await add_worker(database)
    id = await add_job(database)
    before = await database.fetchrow("SELECT status, attempt, run_epoch, locked_by FROM jobs WHERE id = $1", id)
    assert before is not None
    (first,) = await store.claim_jobs([id], worker, "default")
    # What a crash of Postgres leaves of a commit that was not flushed.
    await database.execute(
        "UPDATE jobs SET status = $2, attempt = $3, run_epoch = $4, locked_by = $5 WHERE id = $1", id, *before.values()
    )
    (second,) = await store.claim_jobs([id], worker, "default")
    assert second.run_epoch > first.run_epoch
    assert set() == await store.complete_jobs([lifecycle.complete(first, None)])
    assert {id} == await store.complete_jobs([lifecycle.complete(second, None)])


async def test_two_claims_of_the_same_jobs_get_each_job_once(store: Store, database: Connection) -> None:
    workers = [await add_worker(database) for _ in range(4)]
    ids = [await add_job(database) for _ in range(60)]
    orders = [random.Random(n).sample(ids, len(ids)) for n in range(len(workers))]
    claims = await asyncio.gather(*(store.claim_jobs(o, w, "default") for o, w in zip(orders, workers, strict=True)))
    assert sorted(ids) == sorted(run.id for runs in claims for run in runs)


async def test_a_claim_skips_a_row_that_somebody_holds(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    held, free = await add_job(database), await add_job(database)
    async with database.transaction():
        await database.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", held)
        assert [free] == [run.id for run in await store.claim_jobs([held, free], worker, "default")]
    assert [held] == [run.id for run in await store.claim_jobs([held, free], worker, "default")]


async def test_without_redis_the_heads_of_the_lanes_are_found_in_order(
    store: Store, pool: Pool, database: Connection
) -> None:
    lanes: dict[int, list[UUID]] = {}
    for priority, age in [(5, 10), (5, 30), (5, 20), (0, 1), (9, 99), (5, -60), (7, -60)]:
        id = await add_job(database, priority=priority, run_at=ago(age))
        lanes.setdefault(priority, []).append(id)
    for status in ("waiting", "processing", "dead_letter", "cancelled"):
        await add_job(database, status, priority=0)
    await add_job(database, priority=0, queue="other")
    async with store.connection() as connection, connection.transaction():
        found = await store.find_due(connection, "default", 2)
        assert {0: lanes[0], 5: [lanes[5][1], lanes[5][2]], 9: lanes[9]} == found
        async with store.connection() as another, another.transaction():
            assert {5: [lanes[5][0]]} == await store.find_due(another, "default", 2)


# ---- the fence ------------------------------------------------------------------------------------------------------

BROKEN_FENCES: dict[str, Callable[[Run], dict[str, Any]]] = {
    "id": lambda run: {"id": uuid7()},
    "older epoch": lambda run: {"run_epoch": run.run_epoch - 1},
    "newer epoch": lambda run: {"run_epoch": run.run_epoch + 1},
    "worker": lambda run: {"worker": uuid7()},
}
ENDINGS: dict[str, Callable[[Run], Change]] = {
    "completed": lambda run: lifecycle.complete(run, b'{"ok": true}'),
    "errored": lambda run: lifecycle.fail(run, BOOM, 60.0),
    "exhausted": lambda run: lifecycle.fail(_with(run, attempt=5), BOOM, 60.0),
    "snoozed": lambda run: lifecycle.snooze(run, 60.0),
    "released": lifecycle.release,
    "unstarted": lifecycle.unstart,
    "handed back": lifecycle.hand_back,
    "cancelled": lambda run: lifecycle.cancel(run, "of no use"),
    "discarded": lambda run: lifecycle.discard(run, BOOM),
    "lost": lifecycle.lose,
    "lost again": lambda run: lifecycle.lose(_with(run, rescues=1)),
    "given up": lambda run: lifecycle.lose(_with(run, rescues=2)),
}


def _with(run: Run, **changes: Any) -> Run:
    return Run(**{name: getattr(run, name) for name in run.__struct_fields__} | changes)


async def end(store: Store, change: Change, **options: Any) -> bool:
    """Write one ending, as the completer does."""
    if change.after is Status.COMPLETED:
        return change.run.id in await store.complete_jobs([change])
    return change.run.id in await store.end_runs([change], **options)


async def test_each_part_of_the_fence_refuses_every_ending(store: Store, database: Connection) -> None:
    for name, ending in ENDINGS.items():
        run = await running(database)
        before = await row_of(database, run.id)
        broken = {part: await end(store, ending(_with(run, **alter(run)))) for part, alter in BROKEN_FENCES.items()}
        assert dict.fromkeys(BROKEN_FENCES, False) == broken, name
        assert before == await row_of(database, run.id), name
        assert await end(store, ending(run)), name
        assert not await end(store, ending(run)), f"{name}: twice"
    # The right id, epoch and worker, but the run has ended: only the status tells.
    for status in Status:
        if status not in (Status.PROCESSING, Status.COMPLETED):
            run = await running(database)
            final = status in lifecycle.FINAL
            await database.execute(
                "UPDATE jobs SET status = $2, finished_at = CASE WHEN $3 THEN now() END WHERE id = $1",
                *(run.id, status.value, final),
            )
            before = await row_of(database, run.id)
            assert dict.fromkeys(ENDINGS, False) == {n: await end(store, e(run)) for n, e in ENDINGS.items()}, status
            assert before == await row_of(database, run.id), status


async def test_each_ending_leaves_the_row_as_the_lifecycle_says(store: Store, database: Connection) -> None:
    columns = "status attempt rescues error_type error_message cancel_reason".split()
    expected = {
        "completed": ("completed", 2, 0, None, None, None),
        "errored": ("failed", 2, 0, "ValueError", "boom", None),
        "exhausted": ("dead_letter", 5, 0, "ValueError", "boom", None),
        "snoozed": ("scheduled", 1, 0, None, None, None),
        "released": ("pending", 1, 0, None, None, None),
        "unstarted": ("pending", 1, 0, None, None, None),
        "handed back": ("scheduled", 1, 0, None, None, None),
        "cancelled": ("cancelled", 2, 0, None, None, "of no use"),
        "discarded": ("dead_letter", 2, 0, "ValueError", "boom", None),
        "lost": ("pending", 1, 1, None, None, None),
        "lost again": ("scheduled", 1, 2, None, None, None),
        "given up": ("dead_letter", 1, 3, "WorkerLost", lifecycle.lose(await running(database)).failure, None),
    }
    losses = ("lost", "lost again")  # their failure is told as well
    waits = {"errored": 60.0, "snoozed": 60.0, "handed back": 1.0, "lost": 0.0, "lost again": 5.0}
    for name, ending in ENDINGS.items():
        run = await running(database, attempt=2)
        before = await row_of(database, run.id) or {}
        assert await end(store, ending(run)), name
        row = await row_of(database, run.id) or {}
        found = tuple(row.get(column) for column in columns)
        wanted = expected[name]
        if name in (*losses, "given up"):
            failure = lifecycle.lose(run).failure
            assert failure is not None
            wanted = (*wanted[:3], failure.type, failure.message, None)
        assert wanted == found, name
        assert (run.run_epoch, run.worker) == (row["run_epoch"], row["locked_by"]), name
        assert (row["status"] in lifecycle.FINAL) == (row["finished_at"] is not None), name
        if name in waits:
            assert abs((row["run_at"] - datetime.now(UTC)).total_seconds() - waits[name]) < 5, name
        else:
            assert before["run_at"] == row["run_at"], name


async def test_a_success_moves_the_whole_row(store: Store, database: Connection) -> None:
    run = await running(
        *(database,),
        tags=["a", "b"],
        unique_key="k",
        expires_at=ago(-60),
        trace_id="t",
        error_type="E",
        error_message="m",
        payload='{"x": [1]}',
        priority=2,
        rescues=1,
        attempt=3,
        owner=4,
    )
    before = await row_of(database, run.id) or {}
    assert {run.id} == await store.complete_jobs([lifecycle.complete(run, b'{"answer": 42}')])
    after = await row_of(database, run.id) or {}
    assert not await database.fetchval("SELECT count(*) FROM jobs")
    assert after["result"] == '{"answer": 42}'
    same = set(before) & set(after) - {"status", "finished_at"}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    # What only jobs has says how a row is while it lives.
    assert {"updated_at", "cancel_requested_at", "cancel_reason", "slot", "key_slot"} == set(before) - set(after)


@pytest.mark.parametrize("results", [(None, None, None), (None, b"1", None), (b"1", b"1", b"1")])
async def test_endings_of_one_statement_keep_their_worker_and_result(
    store: Store, database: Connection, results: tuple[bytes | None, ...]
) -> None:
    for others in ([NOBODY, NOBODY, NOBODY], [NOBODY, uuid4(), NOBODY]):
        runs = [await running(database, locked_by=worker) for worker in others]
        changes = [lifecycle.complete(run, result) for run, result in zip(runs, results, strict=True)]
        stranger = uuid4()
        assert set() == await store.complete_jobs([lifecycle.complete(_with(r, worker=stranger), None) for r in runs])
        assert {run.id for run in runs} == await store.complete_jobs(changes)
        rows = [await row_of(database, run.id) or {} for run in runs]
        assert others == [row["locked_by"] for row in rows]
        assert [result and result.decode() for result in results] == [row["result"] for row in rows]


async def test_of_a_batch_only_the_endings_whose_fence_holds_are_accepted(store: Store, database: Connection) -> None:
    runs = [await running(database) for _ in range(6)]
    stale = [_with(run, run_epoch=1) for run in runs[3:]]
    done = await store.complete_jobs([lifecycle.complete(run, None) for run in [*runs[:3], *stale]])
    assert {run.id for run in runs[:3]} == done
    rows = await store.end_runs([lifecycle.release(run) for run in [runs[3], *stale[1:]]])
    assert {runs[3].id: ("default", 5, "pending", runs[3].run_at)} == {
        id: (row["queue"], row["priority"], row["status"], row["run_at"]) for id, row in rows.items()
    }
    assert [await status_of(database, run.id) for run in runs[4:]] == ["processing"] * 2


async def test_a_cancel_request_wins_over_every_ending_but_success(store: Store, database: Connection) -> None:
    found = {}
    for name, ending in ENDINGS.items():
        run = await running(database, cancel_requested_at=ago(1), cancel_reason="asked")
        change = ending(run)
        assert await end(store, change), name
        row = await row_of(database, run.id) or {}
        found[name] = row["status"]
        if change.after is not Status.COMPLETED:
            assert row["cancel_reason"] == "asked", name
            # Recorded even when the run would not have been: it is the end of the job.
            assert [change.cause.value] == [h["outcome"] for h in await history_of(database, run.id)], name
    assert dict.fromkeys(ENDINGS, "cancelled") | {"completed": "completed"} == found


async def test_only_recorded_runs_get_a_row_in_the_history(store: Store, database: Connection) -> None:
    found = {}
    for name, ending in ENDINGS.items():
        run = await running(database, attempt=2)
        change = ending(run)
        await end(store, change)
        found[name] = [
            (h["run_epoch"], h["attempt"], h["worker"], h["outcome"], h["error_type"], h["traceback"])
            for h in await history_of(database, run.id)
        ]
    none = ("completed", "unstarted", "handed back")
    assert {name for name, rows in found.items() if not rows} == set(none)
    assert found["errored"] == [(7, 2, NOBODY, "errored", "ValueError", "Traceback …")]
    assert found["released"] == [(7, 2, NOBODY, "released", None, None)]
    assert found["lost"] == [(7, 2, NOBODY, "lost", "WorkerLost", None)]


async def test_revoking_raises_the_epoch_and_an_end_of_my_own_does_not(store: Store, database: Connection) -> None:
    found = {}
    for revoke in (False, True):
        run = await running(database, slot=1, key_slot=2, group_key="g")
        await store.end_runs([lifecycle.lose(run)], revoke=revoke)
        row = await row_of(database, run.id) or {}
        found[revoke] = row["run_epoch"] - run.run_epoch
        assert (row["slot"], row["key_slot"]) == (None, None)
    assert found == {False: 0, True: 1}


async def test_a_row_that_somebody_holds_is_skipped_and_told_as_locked(store: Store, database: Connection) -> None:
    held, free = await running(database), await running(database)
    for ending in (ENDINGS["completed"], ENDINGS["errored"]):
        async with database.transaction():
            await database.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", held.id)
            changes = [ending(held), ending(free)]
            write = store.complete_jobs if changes[0].after is Status.COMPLETED else store.end_runs
            assert [free.id] == list(await write(changes))  # type: ignore[operator]
            assert {held.id: "locked"} == await store.read_endings([changes[0]])
        free = await running(database)


async def test_what_became_of_an_ending_is_told_from_the_rows(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    changes: dict[str, Change] = {}

    async def case(name: str, *, first: str = "", then: str = "") -> None:
        run = await running(database, locked_by=worker)
        changes[name] = ENDINGS["errored"](run)
        if first:
            await end(store, ENDINGS[first](run))
        if then == "revoked":
            await store.end_runs([lifecycle.lose(run)], revoke=True)
        if then in ("retried", "claimed again"):
            await database.execute("UPDATE jobs SET run_at = now() WHERE id = $1", run.id)
        if then == "retried":
            async with store.connection() as connection:
                assert await store.retry_jobs(connection, [run.id])
        if then == "claimed again":
            assert await store.claim_jobs([run.id], worker, "default")
        if then == "deleted":
            await store.delete_jobs([run.id])

    await case("still running")
    await case("my success", first="completed")
    await case("my failure", first="errored")
    await case("my failure, retried by a person", first="errored", then="retried")
    await case("my failure, claimed again", first="errored", then="claimed again")
    await case("my release, claimed again", first="released", then="claimed again")
    await case("handed back and not recorded, claimed again", first="handed back", then="claimed again")
    await case("rescued", then="revoked")
    await case("rescued and claimed again", then="revoked")
    await database.execute("UPDATE jobs SET run_at = now() WHERE id = $1", changes["rescued and claimed again"].run.id)
    await store.claim_jobs([changes["rescued and claimed again"].run.id], worker, "default")
    await case("deleted", first="completed", then="deleted")
    changes["of another worker"] = ENDINGS["errored"](_with(changes["still running"].run, worker=uuid7()))

    verdicts = {}
    for name, change in changes.items():
        verdicts[name] = (await store.read_endings([change]))[change.run.id]
    assert verdicts == {
        "still running": "locked",
        "my success": "completed",
        "my failure": "mine",
        "my failure, retried by a person": "mine",
        "my failure, claimed again": "mine",
        "my release, claimed again": "mine",
        "handed back and not recorded, claimed again": "lost",
        "rescued": "lost",
        "rescued and claimed again": "lost",
        "deleted": "lost",
        "of another worker": "lost",
    }


# ---- processes ------------------------------------------------------------------------------------------------------


async def test_only_lapsed_living_processes_are_marked_and_never_myself(store: Store, database: Connection) -> None:
    myself = await add_worker(database, lease=-5)
    lapsed = {state: await add_worker(database, state=state, lease=-5) for state in ("alive", "draining", "stopped")}
    fresh = {state: await add_worker(database, state=state) for state in ("alive", "draining")}
    assert {lapsed["alive"], lapsed["draining"]} == set(await store.mark_lost(myself))
    assert await store.mark_lost(myself) == []
    rows = await database.fetch("SELECT id, state FROM workers")
    assert {
        myself: "alive",
        lapsed["alive"]: "lost",
        lapsed["draining"]: "lost",
        lapsed["stopped"]: "stopped",
        fresh["alive"]: "alive",
        fresh["draining"]: "draining",
    } == {row["id"]: row["state"] for row in rows}


async def test_a_beat_that_comes_first_saves_a_lapsed_process(store: Store, database: Connection) -> None:
    worker = await add_worker(database, lease=-5)
    async with database.transaction():
        assert await database.fetchrow(SQL["beat"], worker, 60.0, 3)
        assert await store.mark_lost(uuid7()) == []  # does not wait for the row either
    assert await store.mark_lost(uuid7()) == []
    assert await database.fetchval("SELECT state FROM workers WHERE lease_until > now() AND running = 3") == "alive"


async def test_a_judgement_that_arrives_late_is_void(store: Store, database: Connection) -> None:
    lapsed = await add_worker(database, lease=-1)
    assert await store.mark_lost(uuid7(), ago(1.5)) == []  # Postgres stood still while it was on its way
    assert await store.mark_lost(uuid7(), ago(0.1)) == [lapsed]


async def test_a_beat_that_comes_second_learns_that_it_is_lost(store: Store, pool: Pool, database: Connection) -> None:
    worker = await add_worker(database, lease=-5)
    async with pool.connection("other") as marking:
        async with marking.transaction():
            assert [worker] == [row["id"] for row in await marking.fetch(SQL["mark_lost"], uuid7(), None)]
            beat = asyncio.create_task(database.fetchrow(SQL["beat"], worker, 60.0, 0))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            async with store.connection() as looking:
                await until(lambda: looking.fetchval(waiting))
        assert None is await beat
    assert await database.fetchval("SELECT state FROM workers") == "lost"


async def test_a_beat_revives_a_lapsed_lease_but_no_lost_process(database: Connection) -> None:
    cases = {
        "lapsed": await add_worker(database, lease=-5),
        "draining": await add_worker(database, state="draining"),
        "lost": await add_worker(database, state="lost"),
        "stopped": await add_worker(database, state="stopped"),
    }
    beats = {name: await database.fetchrow(SQL["beat"], id, 60.0, 2) for name, id in cases.items()}
    assert {n: bool(b) for n, b in beats.items()} == {"lapsed": True, "draining": True, "lost": False, "stopped": False}
    assert beats["lapsed"] is not None
    assert beats["lapsed"]["alive"] == 1
    assert await database.fetchval(
        "SELECT lease_until > now() + interval '50 s' FROM workers WHERE id = $1", cases["lapsed"]
    )


async def test_a_process_says_how_it_is_until_it_was_marked_lost(store: Store, database: Connection) -> None:
    alive, lost = await add_worker(database), await add_worker(database, state="lost")
    for state in ("draining", "stopped", "alive"):
        for worker in (alive, lost):
            await store.set_worker_state(worker, state)
    rows = await database.fetch("SELECT id, state FROM workers")
    assert {alive: "stopped", lost: "lost"} == {row["id"]: row["state"] for row in rows}


async def test_types_are_handled_by_living_processes_that_run_jobs(store: Store, database: Connection) -> None:
    await add_worker(database, types=["a", "b"])
    await add_worker(database, types=["b", "c"])
    await add_worker(database, types=["api only"], concurrency=0)
    await add_worker(database, types=["lapsed"], lease=-1)
    await add_worker(database, types=["draining"], state="draining")
    await add_worker(database, types=["lost"], state="lost")
    assert {"a", "b", "c"} == await store.handled_types()


async def test_runs_of_lost_stopped_and_unknown_processes_are_found(store: Store, database: Connection) -> None:
    workers = {state: await add_worker(database, state=state) for state in ("alive", "draining", "lost", "stopped")}
    workers |= {"lapsed": await add_worker(database, lease=-5), "unknown": NOBODY}
    runs = {name: await running(database, locked_by=worker) for name, worker in workers.items()}
    await add_job(database, "failed", locked_by=workers["lost"])
    known = {run.id: run for run in await store.find_lost_runs(orphans=False)}
    assert {runs["lost"].id, runs["stopped"].id} == set(known)
    assert _with(runs["lost"], payload="") == known[runs["lost"].id]
    every = {run.id for run in await store.find_lost_runs(orphans=True)}
    assert {runs["lost"].id, runs["stopped"].id, runs["unknown"].id} == every


async def test_a_job_is_rescued_twice_and_the_third_loss_is_the_end(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    id = await add_job(database, max_attempts=1)
    seen = []
    for _ in range(3):
        await database.execute("UPDATE jobs SET run_at = now() WHERE id = $1", id)
        (mine,) = await store.claim_jobs([id], worker, "default")
        await database.execute("UPDATE workers SET state = 'lost'")
        (lost,) = await store.find_lost_runs(orphans=False)
        await store.end_runs([lifecycle.lose(lost)], revoke=True)
        await database.execute("UPDATE workers SET state = 'alive'")
        row = await row_of(database, id) or {}
        seen.append((row["status"], row["attempt"], row["rescues"]))
        assert set() == await store.complete_jobs([lifecycle.complete(mine, None)])
        assert {id: "lost"} == await store.read_endings([lifecycle.complete(mine, None)])
    assert seen == [("pending", 0, 1), ("scheduled", 0, 2), ("dead_letter", 0, 3)]
    assert [h["outcome"] for h in await history_of(database, id)] == ["lost", "lost_again", "given_up"]


async def test_the_result_of_a_lost_process_counts_until_its_job_was_rescued(
    store: Store, database: Connection
) -> None:
    worker = await add_worker(database, state="lost")
    run = await running(database, locked_by=worker)
    assert {run.id} == await store.complete_jobs([lifecycle.complete(run, None)])
    assert await store.end_runs([lifecycle.lose(run)], revoke=True) == {}


async def test_a_lost_backend_is_ended_and_nobody_elses(
    store: Store, pool: Pool, database: Connection, database_url: str
) -> None:
    stranger = database.get_server_pid()  # of the same role, but not ours
    assert await store.end_backend(stranger)  # as good as gone
    assert await database.fetchval("SELECT 1") == 1
    held = await pool.take("other")
    backend = held.raw.get_server_pid()
    await until(lambda: store.end_backend(backend))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await held.raw.fetchval("SELECT 1")
    await held.give_back(broken=True)


# ---- people ---------------------------------------------------------------------------------------------------------

ACTIONS: dict[str, tuple[Cause | None, Callable[[Store, list[UUID]], Any]]] = {}


def _action(name: str, cause: Cause | None) -> Callable[[Any], Any]:
    def note(call: Any) -> Any:
        ACTIONS[name] = (cause, call)
        return call

    return note


@_action("cancel", Cause.CANCELLED)
async def _cancel(store: Store, ids: list[UUID]) -> Any:
    return await store.cancel_jobs(ids, "why not")


@_action("discard", Cause.DISCARDED)
async def _discard(store: Store, ids: list[UUID]) -> Any:
    return await store.discard_jobs(ids)


@_action("retry", Cause.RETRIED)
async def _retry(store: Store, ids: list[UUID]) -> Any:
    async with store.connection() as connection:
        return await store.retry_jobs(connection, ids)


@_action("delete", None)
async def _delete(store: Store, ids: list[UUID]) -> Any:
    return await store.delete_jobs(ids)


@pytest.mark.parametrize("action", ACTIONS)
async def test_people_move_jobs_as_the_table_says_and_leave_the_others_alone(
    store: Store, database: Connection, action: str
) -> None:
    cause, call = ACTIONS[action]
    ids = {status: await add_job(database, status, priority=3, queue="q") for status in Status}
    before = {status: await row_of(database, id) for status, id in ids.items()}

    def after(status: Status) -> str | None:
        if status is Status.PROCESSING:  # only its worker, or a rescue, ends a run
            return status.value
        return MOVES[status].get(cause, status).value if cause is not None else None

    rows = await call(store, [*ids.values(), uuid7()])
    assert {status: after(status) for status in Status} == await statuses_of(database, ids)
    # A cancelled job that is cancelled again stays what it is, so nothing has moved.
    moved = {status: ids[status] for status in Status if after(status) != status}
    assert {id: ("q", 3, status.value) for status, id in moved.items()} == {
        row["id"]: (row["queue"], row["priority"], row["before"]) for row in rows
    }
    unmoved = set(Status) - set(moved)
    assert {s: before[s] for s in unmoved} == {s: await row_of(database, ids[s]) for s in unmoved}
    await check_counters(database)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_job_that_is_named_twice_moves_and_counts_once(store: Store, database: Connection, action: str) -> None:
    _, call = ACTIONS[action]
    id = await add_job(database, "failed")
    assert [id] == [row["id"] for row in await call(store, [id, id])]
    await check_counters(database)


async def test_cancel_and_discard_say_why_and_when(store: Store, database: Connection) -> None:
    plain, failed, cancelled = (
        await add_job(database),
        await add_job(database, "failed", error_type="E", error_message="m"),
        await add_job(database, "cancelled", cancel_reason="before"),
    )
    await store.cancel_jobs([plain], "asked to")
    await store.discard_jobs([failed, cancelled])
    rows = [await row_of(database, id) or {} for id in (plain, failed, cancelled)]
    assert [(row["cancel_reason"], row["error_type"], row["error_message"]) for row in rows] == [
        ("asked to", None, None),
        (None, "E", "m"),
        (None, "Discarded", "Discarded by a person."),
    ]
    assert all(row["finished_at"] == row["updated_at"] for row in rows)


async def test_a_run_is_asked_to_stop_once_and_only_by_those_who_mean_it(store: Store, database: Connection) -> None:
    run = await running(database)
    before = await row_of(database, run.id)
    assert await store.cancel_jobs([run.id], "a rule's") == []
    assert before == await row_of(database, run.id)
    (asked,) = await store.cancel_jobs([run.id, run.id], "a person's", running=True)
    assert (asked["id"], asked["before"]) == (run.id, "processing")
    row = await row_of(database, run.id) or {}
    assert (row["status"], row["cancel_reason"], row["finished_at"]) == ("processing", "a person's", None)
    assert row["cancel_requested_at"] == row["updated_at"]
    assert await store.cancel_jobs([run.id], "again", running=True) == []
    assert row == await row_of(database, run.id)
    waiting = await add_job(database)
    assert [r["before"] for r in await store.cancel_jobs([waiting], "a person's", running=True)] == ["pending"]
    await check_counters(database)


async def test_a_person_waits_for_a_row_that_is_held_and_then_looks_again(store: Store, database: Connection) -> None:
    worker, id = await add_worker(database), await add_job(database)
    async with database.transaction():
        await database.fetch(SQL["claim_jobs"], [id], worker, "default")
        cancel = asyncio.create_task(store.cancel_jobs([id], "too late"))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    assert await cancel == []
    assert await status_of(database, id) == "processing"


async def test_retry_keeps_the_attempts_of_a_waiting_job_and_restarts_those_of_an_ended_one(
    store: Store, database: Connection
) -> None:
    columns: dict[str, Any] = {"attempt": 3, "rescues": 2, "run_epoch": 9, "run_at": ago(-500), "error_type": "E"}
    ids = {status: await add_job(database, status, **columns) for status in lifecycle.sources(Cause.RETRIED)}
    await database.execute(
        "UPDATE jobs SET cancel_reason = 'r', cancel_requested_at = now() WHERE status = 'cancelled'"
    )
    await _retry(store, list(ids.values()))
    found = {}
    for status, id in ids.items():
        row = await row_of(database, id) or {}
        assert row["run_at"] == row["updated_at"]
        assert (
            *(row["run_epoch"], row["error_type"], row["finished_at"], row["cancel_reason"]),
            row["cancel_requested_at"],
        ) == (9, "E", None, None, None)
        found[status.value] = (row["status"], row["attempt"], row["rescues"])
    assert found == {
        "scheduled": ("pending", 3, 2),
        "failed": ("pending", 3, 2),
        "dead_letter": ("pending", 0, 0),
        "cancelled": ("pending", 0, 0),
    }


async def test_retry_forgets_a_deadline_that_has_passed(store: Store, database: Connection) -> None:
    worker, soon = await add_worker(database), ago(-60)
    passed = await add_job(database, "cancelled", expires_at=ago(5))
    ahead = await add_job(database, "cancelled", expires_at=soon)
    await _retry(store, [passed, ahead])
    assert [None, soon] == [(await row_of(database, id) or {})["expires_at"] for id in (passed, ahead)]
    assert {passed, ahead} == {run.id for run in await store.claim_jobs([passed, ahead], worker, "default")}


async def test_the_history_goes_on_counting_when_a_dead_job_starts_over(store: Store, database: Connection) -> None:
    worker, id = await add_worker(database), await add_job(database, max_attempts=2)
    for life in range(2):
        for attempt in (1, 2):
            await database.execute("UPDATE jobs SET run_at = now() WHERE id = $1", id)
            (run,) = await store.claim_jobs([id], worker, "default")
            assert attempt == run.attempt
            await store.end_runs([lifecycle.fail(run, BOOM, 0.0)])
        assert await status_of(database, id) == "dead_letter"
        if life == 0:
            await _retry(store, [id])
    await _retry(store, [id])
    (run,) = await store.claim_jobs([id], worker, "default")
    await store.complete_jobs([lifecycle.complete(run, b"1")])
    attempts = (await store.get_job(id)).attempts
    assert isinstance(attempts, list)
    assert [(a.number, a.attempt, a.outcome) for a in attempts] == [
        (1, 1, "errored"),
        (2, 2, "exhausted"),
        (3, 1, "errored"),
        (4, 2, "exhausted"),
        (5, 1, "completed"),
    ]


async def test_delete_takes_the_history_along(store: Store, database: Connection) -> None:
    kept, gone = await running(database), await running(database)
    for run in (kept, gone):
        await store.end_runs([ENDINGS["errored"](run)])
    await store.delete_jobs([gone.id])
    assert (await history_of(database, gone.id), len(await history_of(database, kept.id))) == ([], 1)


async def test_where_jobs_are(store: Store, database: Connection) -> None:
    dead = await add_job(database, "dead_letter", unique_key="k", owner=3)
    done = await add_job(database, "completed", unique_key="k")
    found = await store.find_status([dead, done, uuid7()])
    assert {dead: ("dead_letter", 3, "k"), done: ("completed", 0, None)} == {
        id: (row["status"], row["owner"], row["unique_key"]) for id, row in found.items()
    }


# ---- upkeep ---------------------------------------------------------------------------------------------------------


async def test_jobs_that_were_not_started_in_time_are_cancelled_oldest_first(
    store: Store, database: Connection
) -> None:
    late = {status: await add_job(database, status, expires_at=ago(5)) for status in Status}
    in_time = {status: await add_job(database, status, expires_at=ago(-60)) for status in lifecycle.OPEN}
    never = await add_job(database)
    first = await add_job(database, expires_at=ago(500))
    assert [first] == [row["id"] for row in await store.expire_jobs(1)]
    rows = {row["id"]: row["before"] for row in await store.expire_jobs(100)}
    expirable = [s for s in lifecycle.sources(Cause.EXPIRED) if s is not Status.PROCESSING]
    assert {late[status]: status.value for status in expirable} == rows
    assert {s: "cancelled" if s in expirable else s.value for s in Status} == await statuses_of(database, late)
    assert {s: s.value for s in in_time} == await statuses_of(database, in_time)
    row = await row_of(database, first) or {}
    assert (
        row["cancel_reason"],
        await status_of(database, never),
    ) == ("expired: it was not started before expires_at", "pending")
    await check_counters(database)


async def test_a_page_of_lanes_goes_on_after_the_last_row_seen(store: Store, database: Connection) -> None:
    moment = ago(50)
    rows = [(p, moment + timedelta(seconds=n // 2), await add_job(database, priority=p, run_at=moment + timedelta(seconds=n // 2)))
            for p in (1, 4) for n in range(5)]  # fmt: skip
    await add_job(database, "processing", priority=1, run_at=moment)
    await add_job(database, priority=1, queue="other", run_at=moment)
    await add_job(database, priority=2, run_at=moment)
    order = {p: sorted((run_at, id) for q, run_at, id in rows if q == p) for p in (1, 4)}
    seen: dict[int, list[tuple[datetime, UUID]]] = {1: [], 4: []}
    tails: dict[int, tuple[datetime, UUID] | None] = {1: None, 4: None}
    for _ in range(3):
        for priority, packed in (await store.page_lanes("default", tails, 2)).items():
            page = Page(priority, packed)
            seen[priority] += [(run_at, id) for _, run_at, id in page.entries()]
            assert page.tail == seen[priority][-1]
        tails = {p: lane[-1] for p, lane in seen.items()}
    assert order == seen
    assert await store.page_lanes("default", tails, 2) == {}
    early = await store.page_lanes("default", {1: None}, 10, moment + timedelta(seconds=1))
    assert [id for _, id in order[1][:2]] == [entry.id for entry in Page(1, early[1]).entries()]


async def folded(database: Connection) -> dict[tuple[str, str], int]:
    return {(row["queue"], row["status"]): row["n"] for row in await database.fetch(SQL["count_jobs"]) if row["n"]}


async def check_counters(database: Connection) -> None:
    """The invariant of the counters, in one snapshot."""
    async with database.transaction(isolation="repeatable_read"):
        assert await real_counts(database) == await folded(database)


class Walk:
    """Random moves of everything that moves jobs."""

    def __init__(self, seed: int, store: Store, database: Connection, worker: UUID) -> None:
        self.random = random.Random(seed)
        self.store, self.database, self.worker = store, database, worker
        self.steps: list[Callable[[], Any]] = [
            self.insert, self.insert, self.insert, self.claim, self.claim, self.end, self.end, self.end, self.complete,
            self.cancel, self.discard, self.retry, self.delete, self.ask_cancel, self.expire, self.rescue, self.prune,
            self.day, self.fold,
        ]  # fmt: skip

    async def some(self, condition: str, table: str = "jobs") -> list[UUID]:
        rows = await self.database.fetch(f"SELECT id FROM {table} WHERE {condition} ORDER BY id")
        return self.random.sample([row["id"] for row in rows], min(len(rows), self.random.randint(1, 4)))

    async def runs(self) -> list[Run]:
        return [await run_of(self.database, id) for id in await self.some("status = 'processing'")]

    async def insert(self) -> None:
        choice = self.random.choice
        await self.store.insert_jobs(
            [
                new_job(
                    queue=choice("abc"),
                    max_attempts=choice([1, 3]),
                    delay=choice([None, None, 3600.0]),
                    expires_at=choice([None, ago(-3600)]),
                )
                for _ in range(self.random.randint(1, 6))
            ]
        )

    async def claim(self) -> None:
        await self.database.execute("UPDATE jobs SET run_at = now() WHERE status IN ('failed', 'scheduled')")
        for queue in "abc":
            await self.store.claim_jobs(await self.some(f"queue = '{queue}'"), self.worker, queue)

    async def complete(self) -> None:
        await self.store.complete_jobs([lifecycle.complete(run, b"1") for run in await self.runs()])

    async def end(self) -> None:
        changes = []
        for run in await self.runs():
            ending = self.random.choice(list(ENDINGS.values()))
            change = ending(run)
            if change.after is not Status.COMPLETED and change.attempt <= run.max_attempts:
                changes.append(change)
        await self.store.end_runs(changes, revoke=self.random.random() < 0.5)

    async def cancel(self) -> None:
        await self.store.cancel_jobs(await self.some("true"), "walk")

    async def discard(self) -> None:
        await self.store.discard_jobs(await self.some("true"))

    async def retry(self) -> None:
        await _retry(self.store, await self.some("true"))

    async def delete(self) -> None:
        await self.store.delete_jobs((await self.some("true"))[:1] + (await self.some("true", "jobs_done"))[:1])

    async def ask_cancel(self) -> None:
        ids = await self.some("status = 'processing'")
        await self.database.execute("UPDATE jobs SET cancel_requested_at = now() WHERE id = ANY($1)", ids)

    async def expire(self) -> None:
        ids = await self.some("status IN ('pending', 'failed', 'scheduled')")
        await self.database.execute("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = ANY($1)", ids[:2])
        await self.store.expire_jobs(2)

    async def rescue(self) -> None:
        await self.store.end_runs([lifecycle.lose(run) for run in await self.runs()], revoke=True)

    async def prune(self) -> None:
        await self.store.prune_jobs(self.random.choice(["cancelled", "dead_letter"]), 0.0, 2)
        await self.store.prune_stragglers(0.0, 2)

    async def day(self) -> None:
        if TODAY in await self.store.list_days():
            await self.store.drop_day(TODAY, self.random.choice([0.0, 3600.0]))
        else:
            await self.store.create_day(TODAY)

    async def fold(self) -> None:
        await self.store.fold_counters()


@pytest.mark.parametrize("seed", [1, 2])
async def test_counters_equal_the_rows_after_any_moves_before_and_after_folding(
    store: Store, database: Connection, seed: int
) -> None:
    walk = Walk(seed, store, database, await add_worker(database, lease=600))
    for n in range(300):
        await walk.random.choice(walk.steps)()
        if n % 20 == 0:
            await check_counters(database)
    await check_counters(database)
    before = await real_counts(database)
    assert await store.fold_counters() > 0
    assert await store.fold_counters() == 0
    assert before == await folded(database)
    assert len({status for _, status in before}) > 4  # the walk went somewhere


async def test_the_minutes_hold_what_was_folded(store: Store, database: Connection) -> None:
    await store.insert_jobs([new_job(), new_job(), new_job(queue="q")])
    await store.fold_counters()
    await store.insert_jobs([new_job()])
    await store.fold_counters()
    rows = await database.fetch(
        "SELECT queue, before, after, sum(n)::int AS n FROM counter_minutes GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("default", "", "pending", 3), ("q", "", "pending", 1)]


async def test_one_process_folds_at_a_time(store: Store, database: Connection) -> None:
    await store.insert_jobs([new_job()])
    async with database.transaction():
        assert await database.fetchval(SQL["fold_counters"]) == 1
        assert await store.fold_counters() == 0
        assert await folded(database) == {("default", "pending"): 1}


async def test_the_day_of_an_id_is_the_same_in_python_and_in_sql(database: Connection) -> None:
    ids = [uuid7(), id_of_day(0), id_of_day(TODAY), id_of_day(TODAY + 40_000), UUID(int=0), UUID(int=2**128 - 1)]
    ids += [UUID(int=random.Random(n).getrandbits(128)) for n in range(50)] + [uuid4()]
    edge = (TODAY * 86_400_000) << 80
    ids += [UUID(int=edge - 1), UUID(int=edge)]
    rows = await database.fetch("SELECT id, job_day(id) AS day FROM unnest($1::uuid[]) AS t (id)", ids)
    assert {id: day_of(id) for id in ids} == {row["id"]: row["day"] for row in rows}
    assert [day_of(id) for id in ids[-2:]] == [TODAY - 1, TODAY]


async def partition_of(database: Connection, id: UUID, table: str = "jobs_done") -> str | None:
    column = "id" if table == "jobs_done" else "job_id"
    found: str | None = await database.fetchval(f"SELECT tableoid::regclass::text FROM {table} WHERE {column} = $1", id)
    return found


async def failed_once(store: Store, database: Connection, id: UUID) -> None:
    await add_job(database, "processing", id=id)
    await store.end_runs([ENDINGS["errored"](await run_of(database, id))])


async def test_a_new_day_takes_over_what_came_before_it(store: Store, database: Connection) -> None:
    day = TODAY - 3
    mine, other = id_of_day(day), id_of_day(day + 1)
    for id in (mine, other):
        await failed_once(store, database, id)
        await database.execute("DELETE FROM jobs WHERE id = $1", id)
        await add_job(database, "completed", id=id)
    assert await store.list_days() == []
    await store.create_day(day)
    assert [day] == await store.list_days()
    for table in ("jobs_done", "job_attempts"):
        assert [f"{table}_{day}", f"{table}_default"] == [await partition_of(database, i, table) for i in (mine, other)]
    later = await add_job(database, "completed", id=id_of_day(day, 5))
    assert f"jobs_done_{day}" == await partition_of(database, later)
    with pytest.raises(asyncpg.DuplicateTableError):
        await store.create_day(day)


async def test_a_new_day_is_swept_after_few_new_rows_so_that_lists_need_only_its_indexes(
    store: Store, database: Connection
) -> None:
    await store.create_day(TODAY)
    options = await database.fetchval("SELECT reloptions FROM pg_class WHERE relname = $1", f"jobs_done_{TODAY}")
    assert "autovacuum_vacuum_insert_scale_factor=0.02" in options


async def test_a_dropped_day_leaves_late_finishers_and_the_history_of_what_is_kept(
    store: Store, database: Connection
) -> None:
    day = TODAY - 9
    await store.create_day(day)
    old, late, dead, scheduled, running_ = (id_of_day(day, n) for n in range(5))
    neighbour = await add_job(database, "completed", id=id_of_day(day + 1), finished_at=ago(9 * 86_400))
    for id in (old, late, dead, scheduled):
        await failed_once(store, database, id)
    await add_job(database, "processing", id=running_)
    await database.execute("DELETE FROM jobs WHERE id = ANY($1)", [old, late])
    await database.execute("INSERT INTO counter_deltas (queue, before, after, n) VALUES ('default', 'failed', '', 2)")
    await add_job(database, "completed", id=old, finished_at=ago(9 * 86_400))
    await add_job(database, "completed", id=late, finished_at=ago(60))

    await store.drop_day(day, 86_400.0)
    assert await store.list_days() == []
    assert {old: None, late: "completed", dead: "failed", scheduled: "failed", running_: "processing", neighbour: "completed"} == {
        id: await status_of(database, id) for id in (old, late, dead, scheduled, running_, neighbour)
    }  # fmt: skip
    assert [len(await history_of(database, id)) for id in (old, late, dead, scheduled)] == [0, 1, 1, 1]
    # The late one is pruned when its own time has come, and its bucket is that of its day.
    assert {"jobs_done_default"} == {await partition_of(database, id) for id in (late, neighbour)}
    assert await store.prune_stragglers(86_400.0, 10) == 1  # the neighbour
    assert await store.prune_stragglers(1.0, 10) == 1
    await check_counters(database)
    buckets = await database.fetch(
        "SELECT bucket, sum(CASE WHEN after = 'completed' THEN n ELSE -n END)::int AS n FROM counter_deltas "
        "WHERE 'completed' IN (before, after) GROUP BY 1 ORDER BY 1"
    )
    assert [(day, 0), (day + 1, 0)] == [tuple(row) for row in buckets]
    assert {"jobs_done_default"} == {
        row[0]
        for row in await database.fetch("SELECT relid::regclass::text FROM pg_partition_tree('jobs_done') WHERE isleaf")
    }


async def test_a_day_in_use_is_not_waited_for(store: Store, database: Connection) -> None:
    await store.create_day(TODAY)
    async with database.transaction():
        await database.execute("SELECT FROM jobs_done")
        began = time.monotonic()
        with pytest.raises(asyncpg.LockNotAvailableError):
            await store.drop_day(TODAY, 0.0)
        assert time.monotonic() - began < 60  # others wait ten minutes
    assert await store.list_days() == [TODAY]
    await store.drop_day(TODAY, 0.0)
    assert await store.list_days() == []


async def test_ended_jobs_are_pruned_by_status_and_age_with_their_history(store: Store, database: Connection) -> None:
    ages = {"young": 50, "old": 5000}
    ids = {
        (status, name): await add_job(database, status, finished_at=ago(age))
        for status in ("cancelled", "dead_letter")
        for name, age in ages.items()
    }
    await database.execute(
        "INSERT INTO job_attempts (job_id, run_epoch, attempt, finished_at, outcome) SELECT id, 1, 1, now(), 'x' FROM jobs"
    )
    await add_job(database)
    assert await store.prune_jobs("cancelled", 1000.0, 10) == 1
    assert await store.prune_jobs("pending", 0.0, 10) == 0
    left = {key for key, id in ids.items() if await row_of(database, id)}
    assert set(ids) - {("cancelled", "old")} == left
    assert {key for key, id in ids.items() if await history_of(database, id)} == left
    assert await store.prune_jobs("dead_letter", 0.0, 1) == 1  # oldest first, no more than asked
    assert {("cancelled", "young"), ("dead_letter", "young")} == {
        k for k, id in ids.items() if await row_of(database, id)
    }
    await check_counters(database)


async def test_small_things_are_pruned_when_they_have_expired(store: Store, database: Connection) -> None:
    for name, state, age in [("a", "lost", 2), ("b", "lost", 0), ("c", "stopped", 2), ("d", "alive", 2)]:
        id = await add_worker(database, state=state)
        await database.execute(
            "UPDATE workers SET host = $2, beat_at = now() - $3 * interval '1 day' WHERE id = $1", id, name, age
        )
    busy = await add_worker(database, state="lost")
    await database.execute("UPDATE workers SET host = 'busy', beat_at = now() - interval '2 days' WHERE id = $1", busy)
    await add_job(database, "processing", locked_by=busy)
    await database.execute(
        "INSERT INTO idempotency_keys SELECT 0, 'k' || n, '', '{}', now(), now() + n * interval '1 s' FROM unnest(ARRAY[-1, 60]) n"
    )
    await database.execute(
        "INSERT INTO counter_minutes SELECT now() - n * interval '1 day', 'q', '', '', 1 FROM unnest(ARRAY[1, 9]) n"
    )
    assert await store.prune_small(10) == 4
    assert [row[0] for row in await database.fetch("SELECT host FROM workers ORDER BY host")] == ["b", "busy", "d"]
    assert [row[0] for row in await database.fetch("SELECT key FROM idempotency_keys")] == ["k60"]
    assert await database.fetchval("SELECT count(*) FROM counter_minutes") == 1


# ---- reads ----------------------------------------------------------------------------------------------------------


async def test_one_job_is_shown_with_its_history_and_the_run_that_is_on(store: Store, database: Connection) -> None:
    worker = await add_worker(database)
    id = await add_job(database, unique_key="k", tags=["t"])
    (first,) = await store.claim_jobs([id], worker, "default")
    await store.end_runs([lifecycle.fail(first, BOOM, 0.0)])
    (second,) = await store.claim_jobs([id], worker, "default")

    on = await store.get_job(id)
    assert isinstance(on.attempts, list)
    assert ("processing", worker, 2, False) == (on.status, on.worker, on.attempt, on.cancel_requested)
    assert [(1, "errored", BOOM.traceback), (2, "processing", None)] == [
        (a.number, a.outcome, a.traceback) for a in on.attempts
    ]
    assert on.attempts[0].error is not None
    assert (on.attempts[0].error.type, on.attempts[0].error.message) == ("ValueError", "boom")
    assert on.attempts[1].finished_at is None

    await store.complete_jobs([lifecycle.complete(second, b'{"n": 1}')])
    done = await store.get_job(id)
    assert isinstance(done.attempts, list)
    assert (*(done.status, bytes(done.result or b"").decode(), list(done.tags), done.unique_key),) == (
        "completed",
        '{"n": 1}',
        ["t"],
        "k",
    )
    assert [(a.number, a.outcome) for a in done.attempts] == [(1, "errored"), (2, "completed")]
    last = done.attempts[-1]
    assert (worker, second.started_at, done.finished_at) == (last.worker, last.started_at, last.finished_at)
    assert done.error is not None  # of the last failure, kept


async def test_a_job_that_is_not_there_was_pruned_only_if_its_day_was_dropped(
    store: Store, database: Connection
) -> None:
    with pytest.raises(NotFound):  # nothing was ever dropped
        await store.get_job(id_of_day(TODAY - 30))
    await store.create_day(TODAY - 7)
    await store.create_day(TODAY)
    verdicts = {}
    ids = {"older": id_of_day(TODAY - 8), "kept": id_of_day(TODAY - 7), "now": uuid7(), "no UUIDv7": UUID(int=4 << 76)}
    for name, id in ids.items():
        try:
            await store.get_job(id)
        except (NotFound, Pruned) as error:
            verdicts[name] = type(error)
    assert {"older": Pruned, "kept": NotFound, "now": NotFound, "no UUIDv7": NotFound} == verdicts
    late = await add_job(database, "completed", id=id_of_day(TODAY - 30))
    assert (await store.get_job(late)).status == "completed"


async def test_a_job_that_is_not_there_costs_no_connection(pool: Pool, store: Store) -> None:
    async def backends() -> set[int]:
        async with store.connection() as connection:
            return {connection.get_server_pid()}

    before = await backends()
    for _ in range(3):
        with pytest.raises(NotFound):
            await store.get_job(uuid7())
    assert before == await backends()


# ---- connections ----------------------------------------------------------------------------------------------------


async def test_a_pinned_store_keeps_its_connection_and_takes_another_after_it_broke(
    store: Store, database: Connection
) -> None:
    pinned = store.pinned()

    async def backend() -> int:
        async with pinned.connection() as connection:
            return connection.get_server_pid()

    first = await backend()
    assert first == await backend()
    with pytest.raises(asyncpg.DataError):
        await pinned.insert_jobs([new_job(payload=b"{")])
    assert first == await backend()
    with pytest.raises(NotFound):
        await pinned.get_job(uuid7())
    assert first == await backend()

    await database.execute("SELECT pg_terminate_backend($1)", first)
    with pytest.raises(AnswerLost) as caught:
        await pinned.ping()
    assert first == caught.value.backend
    second = await backend()
    assert first != second
    await pinned.release()
    await pinned.release()
    assert second == await backend()  # the pool gave the same one again
    await pinned.release()


async def test_ping_answers(store: Store) -> None:
    await store.ping()


@pytest.mark.parametrize("name", ACTIONS)
async def test_who_waits_for_rows_takes_them_in_the_order_of_their_ids(
    name: str, store: Store, database: Connection
) -> None:
    """Whatever the order in which they are named: two that wait for each other's rows would be a deadlock."""
    low, high = id_of_day(TODAY, 1), id_of_day(TODAY, 2)
    for id in (high, low):  # so that no plan meets the lower one first by chance
        await add_job(database, "failed", id=id)
    async with database.transaction():
        await database.fetch("SELECT FROM jobs WHERE id = $1 FOR UPDATE", low)
        action = asyncio.create_task(ACTIONS[name][1](store, [high, low]))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        assert await database.fetch("SELECT id FROM jobs WHERE id = $1 FOR UPDATE SKIP LOCKED", high) == [(high,)]
    await action


async def test_a_job_that_is_being_claimed_is_not_claimed_again(store: Store, database: Connection) -> None:
    first, second = await add_worker(database), await add_worker(database)
    id = await add_job(database)
    async with database.transaction():
        assert len(await database.fetch(SQL["claim_jobs"], [id], first, "default")) == 1
        again = asyncio.create_task(store.claim_jobs([id], second, "default"))

        async def passed_or_waits() -> bool:
            return again.done() or bool(await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await until(passed_or_waits)
    assert await again == []
