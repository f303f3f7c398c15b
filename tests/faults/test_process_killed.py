"""A process dies without a word: nothing is lost, nothing is accepted twice, and its jobs run again soon."""

from __future__ import annotations

from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import LEASE, Processes
from tests.support.waiting import until


async def test_one_of_two_is_killed_under_load(run: Processes, load: Load, database: Connection) -> None:
    victim, survivor = run.start(), run.start()
    await victim.ready()
    await survivor.ready()
    await load.mixed(survivor, 1_000)
    await until(load.done, lambda n: n >= 200)
    await load.bulk(survivor, [load.job(seconds=0.3) for _ in range(40)])  # so that both surely hold some
    await load.running(1)
    victim.kill()
    await load.finished(seconds=LEASE + 5)
    assert await oracle.moves(database, "processing", "pending") > 0, "the victim held nothing"
    assert [e["count"] for e in survivor.events("runs_rescued")]
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1, "a loss uses up no attempt"


async def test_the_only_one_is_killed_and_started_again(run: Processes, load: Load, database: Connection) -> None:
    first = await run.start().ready()
    await load.mixed(first, 1_000)
    await load.bulk(first, [load.job(seconds=0.3) for _ in range(40)])
    await until(load.done, lambda n: n >= 200)
    first.kill()
    await run.start().ready()
    await load.finished(seconds=LEASE + 5)
    assert await oracle.moves(database, "processing", "pending") > 0
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1
