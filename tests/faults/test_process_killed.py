"""A process dies without a word, anywhere: nothing is lost, nothing is accepted twice, and its jobs run again soon."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from jobflow.pool import Connection
from tests.faults.conftest import Load, note
from tests.support import oracle
from tests.support.process import LEASE, Process, Processes, dying, idle_until
from tests.support.waiting import until

AGAIN = "SELECT count(*) FROM (SELECT id FROM oracle WHERE after = 'processing' GROUP BY id HAVING count(*) > 1) x"
FOUND = 20.0  # seconds until the sweep has surely found what Redis does not know


@pytest.mark.slow
async def test_r01_one_of_three_is_killed_again_and_again(run: Processes, load: Load, database: Connection) -> None:
    jobs, kills = 20_000, 30
    all = [run.start(WORKER_CONCURRENCY="20") for _ in range(3)]
    for process in all:
        await process.ready()
    began = time.monotonic()
    for n in range(kills):
        await load.through(lambda: all, jobs * (n + 1) // kills - len(load.acknowledged), seconds=0.1)
        assert len(await load.left()) > 60, "whoever is killed is busy"
        all[n % 3].kill()
        all[n % 3] = run.start(WORKER_CONCURRENCY="20")
        # The next one dies no sooner than this one works: some process must make headway.
        await all[n % 3].ready()
    await load.finished(seconds=120)
    again = await database.fetchval(AGAIN)
    note(
        f"{len(load.acknowledged)} jobs, {kills} kills, 0 lost, {again} run more than once, {time.monotonic() - began:.0f} s"
    )
    assert len(load.acknowledged) == jobs
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1, "a loss uses up no attempt"


@pytest.mark.slow
async def test_one_of_two_is_killed_under_load(run: Processes, load: Load, database: Connection) -> None:
    victim, survivor = run.start(), run.start()
    await victim.ready()
    await survivor.ready()
    await load.mixed(survivor, 600)
    await until(load.done, lambda n: n >= 100)
    await load.bulk(survivor, [load.job(seconds=0.3) for _ in range(40)])  # so that both surely hold some
    await load.running(1)
    victim.kill()
    await load.finished(seconds=LEASE + 5)
    assert await oracle.moves(database, "processing", "pending") > 0, "the victim held nothing"
    assert [e["count"] for e in survivor.events("runs_rescued")]
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1, "a loss uses up no attempt"


async def test_r02_all_are_killed_at_once_and_one_is_started(run: Processes, load: Load, database: Connection) -> None:
    all = [run.start(), run.start()]
    for process in all:
        await process.ready()
    await load.mixed(all[0], 600)
    await load.bulk(all[1], [load.job(seconds=0.3) for _ in range(40)])
    await until(load.done, lambda n: n >= 100)
    for process in all:
        process.kill()
    await run.start().ready()
    await load.finished()
    assert await oracle.moves(database, "processing", "pending") > 0
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1


# --- between two steps ---


async def ended_by(process: Process, load: Load, job: dict[str, object], *, answered: bool) -> float:
    """Post a job that is the death of the process. Returns when it died, monotonic."""
    await process.ready()
    status = await load.one(process, job)
    assert (status == 201) == answered
    assert await process.ended() == -9
    return time.monotonic()


async def only(database: Connection) -> tuple[str, int, int, int]:
    """status, attempt, rescues and number of runs of the one job there is."""
    (row,) = await database.fetch(
        "SELECT id, status, attempt, rescues FROM jobs "
        "UNION ALL SELECT id, 'completed', attempt, rescues FROM jobs_done"
    )
    runs = await database.fetchval("SELECT count(*) FROM oracle WHERE after = 'processing' AND before <> after")
    return row["status"], row["attempt"], row["rescues"], runs


async def completed(database: Connection, seconds: float) -> None:
    async def status() -> str:
        return (await only(database))[0]

    await until(status, lambda word: word == "completed", seconds=seconds)


async def test_r03_between_the_commit_of_a_job_and_the_push_to_redis(
    run: Processes, load: Load, database: Connection
) -> None:
    await ended_by(run.start(dying("jobflow.intake:Intake._insert", after=True)), load, load.job(), answered=False)
    assert await only(database) == ("pending", 0, 0, 0), "committed, though nobody was told"
    await run.start().ready()
    await completed(database, FOUND)
    assert await only(database) == ("completed", 1, 0, 1)


@pytest.mark.slow
async def test_one_push_in_seven_is_lost(run: Processes, load: Load) -> None:
    before = """
import itertools, jobflow.broker as b
push, count = b.Broker.push, itertools.count()
async def forget(self, queue, entries, *, fresh=True):
    entries = list(entries)
    if fresh and next(count) % 7 == 0:
        return b.Pushed(len(entries), [])
    return await push(self, queue, entries, fresh=fresh)
b.Broker.push = forget
"""
    process = await run.start(before).ready()
    for _ in range(20):
        await load.bulk(process, [load.job("noop") for _ in range(10)])
    await load.finished(seconds=FOUND)


async def test_r04_between_the_pop_and_the_claim(run: Processes, load: Load, database: Connection) -> None:
    await ended_by(run.start(dying("jobflow.engine.fetcher:Fetcher._claim")), load, load.job(), answered=True)
    assert await only(database) == ("pending", 0, 0, 0), "its id is in no lane any more"
    await run.start().ready()
    await completed(database, FOUND)
    assert await only(database) == ("completed", 1, 0, 1)
    await load.finished()


@pytest.mark.parametrize(
    ("lease", "bar"), [(LEASE, 20.0), pytest.param(15.0, 20.0, marks=pytest.mark.slow, id="the default lease")]
)
async def test_r05_between_the_commit_of_a_claim_and_the_handler(
    lease: float, bar: float, run: Processes, load: Load, database: Connection, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    survivor = await run.start(idle_until(gate), JOBFLOW_LEASE=str(lease)).ready()
    victim = run.start(dying("jobflow.store:Store.claim_jobs", after=True), JOBFLOW_LEASE=str(lease))
    died = await ended_by(victim, load, load.job(), answered=True)
    assert (await only(database))[3] == 1, "claimed, though it never ran"  # it may be rescued by now
    gate.touch()
    await load.running(1, seconds=bar)
    note(f"lease {lease:g} s: its job ran again {time.monotonic() - died:.1f} s after its death")
    assert time.monotonic() - died < bar
    await load.finished()
    assert await only(database) == ("completed", 1, 1, 2), "the attempt is not used up"
    assert await database.fetchval("SELECT array_agg(outcome) FROM job_attempts") == ["lost"]
    assert [e["count"] for e in survivor.events("runs_rescued")] == [1]


async def test_r06_between_the_end_of_a_handler_and_its_completion(
    run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    """It has happened twice then, as is promised, and counts once."""
    await ended_by(run.start(dying("jobflow.store:Store.complete_jobs")), load, load.job(), answered=True)
    assert len(load.lines("end")) == 1
    process = await run.start().ready()
    await load.finished()
    assert len(load.lines("begin")) == len(load.lines("end")) == 2
    assert await only(database) == ("completed", 1, 1, 2)
    job = (await client.get(f"{process.url}/jobs/{load.acknowledged[0]}")).json()
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "completed"]


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_an_effect_that_is_committed_with_the_completion_happens_once(
    dies: str, run: Processes, load: Load, database: Connection, tmp_path: Path
) -> None:
    await database.execute("CREATE TABLE effects (id text)")
    job: dict[str, object] = {"type": "pay", "payload": {"path": str(tmp_path / "paid"), "dies": dies}}
    await ended_by(run.start(), load, job, answered=True)
    await run.start().ready()
    await load.finished()
    assert await database.fetchval("SELECT count(*) FROM effects") == 1
    assert await only(database) == ("completed", 1, *((1, 2) if dies == "before" else (0, 1)))
