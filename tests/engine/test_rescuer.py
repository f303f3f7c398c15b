"""Jobs of a process that is gone run again, soon, and not for ever."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobflow.engine.rescuer import ORPHANS_EVERY, Rescuer
from jobflow.events import RunsRescued, WorkerMarkedLost
from jobflow.lifecycle import complete
from jobflow.pool import Connection
from tests.support.parts import Parts, waits
from tests.support.rows import add_job, history_of, row_of, status_of


async def lapse(database: Connection, worker: UUID) -> None:
    await database.execute("UPDATE workers SET lease_until = now() - interval '1 second' WHERE id = $1", worker)


async def state_of(database: Connection, worker: UUID) -> str:
    return str(await database.fetchval("SELECT state FROM workers WHERE id = $1", worker))


@pytest.fixture
async def other(parts: Parts) -> UUID:
    """Another process, alive."""
    parts.be_healthy()
    return await parts.register(mine=False)


async def test_a_living_process_is_left_alone(parts: Parts, other: UUID, database: Connection) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    assert 0 < await parts.rescuer.tick() <= 1.2
    assert await state_of(database, other) == "alive"
    assert await status_of(database, run.id) == "processing"


async def test_a_lapsed_lease_is_marked_and_its_jobs_are_ready_at_once(
    parts: Parts, other: UUID, database: Connection
) -> None:
    ids = await parts.insert(3)
    runs = await parts.claim(ids, other)
    for priority in range(10):
        await parts.broker.fill("default", priority, "", False, b"")
    await lapse(database, other)
    await parts.rescuer.tick()
    assert parts.of(WorkerMarkedLost) == [WorkerMarkedLost(other)]
    assert parts.of(RunsRescued) == [RunsRescued(other, 3)]
    assert await state_of(database, other) == "lost"
    for run in runs:
        row = await row_of(database, run.id)
        assert row is not None
        assert (row["status"], row["attempt"], row["rescues"]) == ("pending", 0, 1)
        assert row["run_epoch"] > run.run_epoch, "or the lost run could still end it"
        assert await waits(database, run.id) <= 0
        assert [h["outcome"] for h in await history_of(database, run.id)] == ["lost"]
    await parts.pusher.flush()
    await parts.register()
    assert set((await parts.broker.pop("default", parts.lease.now(), 10)).ids) == set(ids)


async def test_the_second_loss_waits_and_the_third_is_the_end(parts: Parts, other: UUID, database: Connection) -> None:
    (id,) = await parts.insert()
    await parts.claim([id], other)
    await lapse(database, other)
    await parts.rescuer.tick()
    second = await parts.register(mine=False)
    assert await parts.claim([id], second)
    await lapse(database, second)
    await parts.rescuer.tick()
    assert await status_of(database, id) == "scheduled"
    assert 1 < await waits(database, id) <= 5
    await database.execute("UPDATE jobs SET run_at = now()")
    third = await parts.register(mine=False)
    assert await parts.claim([id], third)
    await lapse(database, third)
    await parts.rescuer.tick()
    row = await row_of(database, id)
    assert row is not None
    assert (row["status"], row["rescues"], row["attempt"], row["error_type"]) == ("dead_letter", 3, 0, "WorkerLost")
    assert [h["outcome"] for h in await history_of(database, id)] == ["lost", "lost_again", "given_up"]
    assert parts.of(RunsRescued)[-1] == RunsRescued(third, 1)


async def test_who_is_not_well_itself_marks_nobody(parts: Parts, other: UUID, database: Connection) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    await lapse(database, other)
    parts.lease.doubt()
    await parts.rescuer.tick()
    assert await state_of(database, other) == "alive"
    assert await status_of(database, run.id) == "processing"
    parts.be_healthy()
    await parts.rescuer.tick()
    assert await state_of(database, other) == "lost"


async def test_nobody_marks_himself(parts: Parts, database: Connection) -> None:
    parts.be_healthy()
    await lapse(database, parts.me)
    await parts.rescuer.tick()
    assert await state_of(database, parts.me) == "alive"


async def test_a_process_that_stopped_with_runs_left_is_no_different(
    parts: Parts, other: UUID, database: Connection
) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    await database.execute("UPDATE workers SET state = 'stopped' WHERE id = $1", other)
    await parts.rescuer.tick()
    assert await status_of(database, run.id) == "pending"


async def test_a_draining_process_whose_lease_lapses_is_lost_too(
    parts: Parts, other: UUID, database: Connection
) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    await database.execute("UPDATE workers SET state = 'draining' WHERE id = $1", other)
    await parts.rescuer.tick()
    assert await status_of(database, run.id) == "processing"
    await lapse(database, other)
    await parts.rescuer.tick()
    assert await status_of(database, run.id) == "pending"


async def test_runs_of_processes_that_nobody_knows_are_found_now_and_then(parts: Parts, database: Connection) -> None:
    parts.be_healthy()
    first = await add_job(database, "processing", locked_by=uuid7())
    await parts.rescuer.tick()
    assert await status_of(database, first) == "pending"
    second = await add_job(database, "processing", locked_by=uuid7())
    for _ in range(ORPHANS_EVERY - 1):
        await parts.rescuer.tick()
    assert await status_of(database, second) == "processing"
    await parts.rescuer.tick()
    assert await status_of(database, second) == "pending"


async def test_a_cancelled_job_is_not_run_again(parts: Parts, other: UUID, database: Connection) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    await database.execute("UPDATE jobs SET cancel_requested_at = now()")
    await lapse(database, other)
    await parts.rescuer.tick()
    assert await status_of(database, run.id) == "cancelled"


async def test_a_cancelled_job_is_no_dead_letter_however_many_workers_it_lost(
    parts: Parts, other: UUID, database: Connection
) -> None:
    (run,) = await parts.claim(await parts.insert(), other)
    await database.execute("UPDATE jobs SET cancel_requested_at = now(), rescues = 2")
    await lapse(database, other)
    await parts.rescuer.tick()
    assert await status_of(database, run.id) == "cancelled"


async def test_a_run_that_goes_on_long_after_its_deadline_is_taken_from_a_living_process(
    parts: Parts, other: UUID, database: Connection
) -> None:
    runs = await parts.claim(await parts.insert(2, timeout=100.0), other)
    for run, seconds in zip(runs, (200, 261), strict=True):
        await database.execute(
            "UPDATE jobs SET started_at = now() - make_interval(secs => $2) WHERE id = $1", run.id, float(seconds)
        )
    await parts.rescuer.tick()
    assert [await status_of(database, run.id) for run in runs] == ["processing", "pending"]
    assert await state_of(database, other) == "alive"
    assert await parts.store.complete_jobs([complete(runs[1], None)]) == set()


async def test_two_rescuers_at_once_rescue_each_run_once(parts: Parts, other: UUID, database: Connection) -> None:
    ids = await parts.insert(50)
    await parts.claim(ids, other)
    await lapse(database, other)
    second = Rescuer(store=parts.store, lease=parts.lease, pusher=parts.pusher, events=parts.events)
    await asyncio.gather(parts.rescuer.tick(), second.tick())
    await asyncio.gather(parts.rescuer.tick(), second.tick())
    assert sum(event.count for event in parts.of(RunsRescued)) == 50
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending' AND rescues = 1") == 50
    await second._store.release()


async def test_very_many_runs_are_rescued_in_pages(parts: Parts, other: UUID, database: Connection) -> None:
    ids = await parts.insert(1_200)
    await parts.claim(ids, other)
    await lapse(database, other)
    await parts.rescuer.tick()
    assert await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending'") == 1_200


async def test_a_lost_process_can_end_a_job_only_until_it_was_rescued(
    parts: Parts, other: UUID, database: Connection
) -> None:
    runs = await parts.claim(await parts.insert(2), other)
    await lapse(database, other)
    await parts.store.mark_lost(parts.me)
    assert await parts.store.complete_jobs([complete(runs[0], None)]) == {runs[0].id}
    await parts.rescuer.tick()
    assert await parts.store.complete_jobs([complete(runs[1], None)]) == set()
    assert await status_of(database, runs[1].id) == "pending"


async def test_the_ending_of_a_rescued_run_is_not_taken_for_an_earlier_one_of_the_same_worker(
    parts: Parts, other: UUID, database: Connection
) -> None:
    """The row still names the lost worker: only the raised epoch tells that somebody else ended the run."""
    (run,) = await parts.claim(await parts.insert(), other)
    await lapse(database, other)
    await parts.rescuer.tick()
    late = complete(run, None)
    assert await parts.store.complete_jobs([late]) == set()
    assert await parts.store.read_endings([late]) == {run.id: "lost"}
