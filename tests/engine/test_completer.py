"""Every ending is written once or refused; its slot is freed when Postgres has answered and not before."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from jobflow.engine.completer import BATCH, IDLE, Ending
from jobflow.errors import AnswerLost, StoreUnavailable
from jobflow.events import RunEnded, RunRefused
from jobflow.lifecycle import Change, Failure, Run, complete, discard, fail, hand_back, lose, release, snooze
from jobflow.pool import Connection
from tests.support.parts import Parts, failing, losing, waits
from tests.support.rows import history_of, real_counts, row_of, status_of
from tests.support.runs import make_run
from tests.support.waiting import until

FAILURE = Failure("ValueError", "no luck", "Traceback")


async def started(parts: Parts, count: int = 1, **changes: Any) -> list[Run]:
    return await parts.take(await parts.insert(count, **changes))


def offer(parts: Parts, *changes: Change) -> None:
    for change in changes:
        parts.endings.offer(change, parts.slots.runs[(change.run.id, change.run.run_epoch)])


def ended(parts: Parts) -> dict[UUID, str]:
    found = [(event.change.run.id, event.status) for event in parts.of(RunEnded)]
    assert len(found) == len(dict(found)), "told twice"
    return dict(found)


async def write_all(parts: Parts) -> None:
    async def left() -> int:
        while await parts.completer.tick() == 0:
            pass
        return len(parts.slots.runs)

    await until(left, lambda n: n == 0)


async def test_every_way_to_end_is_written_at_once(parts: Parts, database: Connection) -> None:
    runs = await started(parts, 6)
    changes = [
        complete(runs[0], b'{"a":1}'), fail(runs[1], FAILURE, 30.0), discard(runs[2], FAILURE), snooze(runs[3], 60.0),
        release(runs[4]), hand_back(runs[5]),
    ]  # fmt: skip
    offer(parts, *changes)
    assert parts.slots.free == 4, "kept until Postgres has answered"
    assert await parts.completer.tick() == 0
    assert parts.slots.free == 10
    states = ["completed", "failed", "dead_letter", "scheduled", "pending", "scheduled"]
    assert [await status_of(database, run.id) for run in runs] == states
    assert ended(parts) == dict(zip([run.id for run in runs], states, strict=True))
    done = await row_of(database, runs[0].id)
    assert done is not None
    assert done["result"] == '{"a": 1}'
    assert 15 < await waits(database, runs[1].id) <= 30
    assert 45 < await waits(database, runs[3].id) <= 60
    counts = {status: n for (_, status), n in (await real_counts(database)).items()}
    assert counts == {"completed": 1, "failed": 1, "dead_letter": 1, "scheduled": 2, "pending": 1}
    attempts = [(await row_of(database, run.id) or {})["attempt"] for run in runs]
    assert attempts == [1, 1, 1, 0, 0, 0]
    assert [h["outcome"] for h in await history_of(database, runs[1].id)] == ["errored"]
    assert await history_of(database, runs[5].id) == [], "it never ran"
    assert await parts.completer.tick() == IDLE


async def test_an_offer_wakes_a_completer(parts: Parts) -> None:
    (run,) = await started(parts)
    waiter = asyncio.create_task(parts.completer.wake.wait(10))
    await asyncio.sleep(0)
    offer(parts, complete(run, None))
    await asyncio.wait_for(waiter, 5)


async def test_batches_are_bounded(parts: Parts) -> None:
    parts.endings.waiting.extend(Ending(complete(make_run(id=UUID(int=n)), None), 0.0) for n in range(BATCH + 3))
    assert len(parts.endings.take()) == BATCH
    assert len(parts.endings.take()) == 3
    assert parts.endings.take() == []


async def test_of_two_runs_of_one_job_that_end_together_the_fence_takes_one(parts: Parts, database: Connection) -> None:
    """The first one's claim was forgotten by a crash of Postgres, and the job was claimed again."""
    (first,) = await started(parts)
    await database.execute("UPDATE jobs SET status = 'pending', locked_by = NULL, attempt = 0 WHERE id = $1", first.id)
    (second,) = await parts.take([first.id])
    offer(parts, complete(first, b"1"), complete(second, b"2"))
    await write_all(parts)
    assert [event.change.run.run_epoch for event in parts.of(RunEnded)] == [second.run_epoch]
    assert [event.change.run.run_epoch for event in parts.of(RunRefused)] == [first.run_epoch]
    assert parts.slots.free == parts.slots.total
    row = await row_of(database, first.id)
    assert row is not None
    assert row["result"] == "2"


async def test_what_runs_again_is_pushed_to_redis(parts: Parts) -> None:
    (run,) = await started(parts)
    for priority in range(10):
        await parts.broker.fill("default", priority, "", False, b"")
    offer(parts, release(run))
    await parts.completer.tick()
    await parts.pusher.flush()
    assert (await parts.broker.pop("default", parts.lease.now(), 1)).ids == [run.id]


async def test_r41_one_row_that_postgres_refuses_does_not_stop_the_others(parts: Parts, database: Connection) -> None:
    parts.slots.total = BATCH
    runs = await started(parts, BATCH)
    changes = [complete(run, b"1") for run in runs[:-1]] + [fail(runs[-1], FAILURE, 1.0)]
    changes[3] = complete(runs[3], b'"\\u0000"')  # JSON that jsonb does not take
    offer(parts, *changes)
    await write_all(parts)
    expected = {run.id: "completed" for run in runs} | {runs[3].id: "failed", runs[-1].id: "failed"}
    assert ended(parts) == expected
    assert await real_counts(database) == {("default", "completed"): BATCH - 2, ("default", "failed"): 2}
    row = await row_of(database, runs[3].id)
    assert row is not None
    assert row["error_type"] == "ResultNotStored"
    assert 45 < await waits(database, runs[3].id) <= 60
    assert parts.slots.free == BATCH


async def test_an_error_text_that_postgres_refuses_is_replaced(parts: Parts, database: Connection) -> None:
    runs = await started(parts, 2)
    offer(parts, fail(runs[0], Failure("X", "nul \x00", ""), 1.0), complete(runs[1], None))
    await write_all(parts)
    row = await row_of(database, runs[0].id)
    assert row is not None
    assert (row["status"], row["error_type"]) == ("failed", "ResultNotStored")
    assert await status_of(database, runs[1].id) == "completed"


async def test_while_postgres_is_away_endings_wait_in_order_and_keep_their_slots(
    parts: Parts, database: Connection
) -> None:
    runs = await started(parts, 3)
    offer(parts, complete(runs[0], None), fail(runs[1], FAILURE, 1.0))
    mend = failing(parts.completer._store, "complete_jobs", StoreUnavailable("away"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await parts.completer.tick()
    offer(parts, complete(runs[2], None))
    assert parts.slots.free == 7
    assert [e.change.run for e in parts.endings.waiting] == runs
    assert parts.of(RunEnded) == []
    mend()
    await write_all(parts)
    assert ended(parts) == {runs[0].id: "completed", runs[1].id: "failed", runs[2].id: "completed"}


@pytest.mark.parametrize("method", ["complete_jobs", "end_runs"])
async def test_an_ending_whose_answer_was_lost_is_recognised_as_ours(
    method: str, parts: Parts, database: Connection
) -> None:
    runs = await started(parts, 3)
    changes = [complete(runs[0], b"1"), fail(runs[1], FAILURE, 60.0), release(runs[2])]
    offer(parts, *changes)
    mend = losing(parts.completer._store, method)
    with pytest.raises(AnswerLost):
        await parts.completer.tick()
    mend()
    assert parts.of(RunEnded) == []
    await write_all(parts)
    assert ended(parts) == {runs[0].id: "completed", runs[1].id: "failed", runs[2].id: "pending"}
    assert parts.of(RunRefused) == []
    assert parts.slots.free == 10
    assert len(await history_of(database, runs[1].id)) == 1


async def test_an_ending_whose_answer_was_lost_is_ours_even_when_the_job_runs_again(
    parts: Parts, database: Connection
) -> None:
    (run,) = await started(parts)
    offer(parts, fail(run, FAILURE, 0.0))
    mend = losing(parts.completer._store, "end_runs")
    with pytest.raises(AnswerLost):
        await parts.completer.tick()
    mend()
    (again,) = await parts.claim([run.id])
    assert again.run_epoch > run.run_epoch
    await write_all(parts)
    assert ended(parts) == {run.id: "failed"}
    assert await status_of(database, run.id) == "processing", "the new run is untouched"


async def test_a_stale_ending_is_refused_and_its_slot_freed(parts: Parts, database: Connection) -> None:
    runs = await started(parts, 3)
    # Rescued, and claimed anew by the very same process: only the epoch differs.
    await parts.store.end_runs([lose(runs[0])], revoke=True)
    (again,) = await parts.claim([runs[0].id])
    # Rescued only; and deleted.
    await parts.store.end_runs([lose(runs[1])], revoke=True)
    await database.execute("DELETE FROM jobs WHERE id = $1", runs[2].id)
    changes = [complete(runs[0], b"1"), fail(runs[1], FAILURE, 1.0), complete(runs[2], None)]
    offer(parts, *changes)
    await parts.completer.tick()
    assert {event.change.run.id for event in parts.of(RunRefused)} == {run.id for run in runs}
    assert parts.of(RunEnded) == []
    assert parts.slots.free == 10
    row = await row_of(database, runs[0].id)
    assert row is not None
    assert (row["status"], row["run_epoch"]) == ("processing", again.run_epoch)
    assert await status_of(database, runs[1].id) == "pending"
    assert await database.fetchval("SELECT count(*) FROM jobs_done") == 0


async def test_a_row_that_somebody_holds_is_offered_again_and_does_not_stop_the_others(
    parts: Parts, database: Connection, database_url: str
) -> None:
    runs = await started(parts, 3)
    offer(parts, *(complete(run, None) for run in runs))
    holder = await asyncpg.connect(database_url, ssl=False)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", runs[1].id)
            await asyncio.wait_for(parts.completer.tick(), 10)
            assert ended(parts) == {runs[0].id: "completed", runs[2].id: "completed"}
            assert parts.slots.free == 9
            assert await status_of(database, runs[1].id) == "processing"
    finally:
        await holder.close()
    await write_all(parts)
    assert ended(parts) == {run.id: "completed" for run in runs}
    assert parts.of(RunRefused) == []


async def test_a_cancel_request_wins_over_every_ending_but_success(parts: Parts, database: Connection) -> None:
    runs = await started(parts, 5)
    await database.execute("UPDATE jobs SET cancel_requested_at = now()")
    offer(
        parts, fail(runs[0], FAILURE, 1.0), release(runs[1]), snooze(runs[2], 5.0), discard(runs[3], FAILURE),
        complete(runs[4], None),
    )  # fmt: skip
    await parts.completer.tick()
    assert [ended(parts)[run.id] for run in runs] == [*["cancelled"] * 4, "completed"]
    assert await status_of(database, runs[4].id) == "completed", "what is done is done"


async def test_a_completion_that_the_handler_committed_itself_is_told_as_one(parts: Parts) -> None:
    (run,) = await started(parts)
    assert await parts.store.complete_jobs([complete(run, None)])
    offer(parts, fail(run, FAILURE, 1.0))
    await parts.completer.tick()
    (event,) = parts.of(RunEnded)
    assert (event.change.cause, event.status) == ("completed", "completed")
    assert parts.slots.free == 10


async def test_a_deadlock_is_tried_again(parts: Parts) -> None:
    (run,) = await started(parts)
    offer(parts, complete(run, None))
    mend = failing(parts.completer._store, "complete_jobs", asyncpg.DeadlockDetectedError("deadlock"))
    with pytest.raises(StoreUnavailable):
        await parts.completer.tick()
    mend()
    await write_all(parts)
    assert ended(parts) == {run.id: "completed"}
