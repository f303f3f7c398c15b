"""A process that stood still past its lease must not end what others have taken over."""

from __future__ import annotations

from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import Processes
from tests.support.waiting import until


async def test_its_endings_are_refused_and_it_goes_on_under_a_new_identity(
    run: Processes, load: Load, database: Connection
) -> None:
    stale, other = run.start(), run.start()
    await stale.ready()
    await other.ready()
    await load.bulk(stale, [load.job(seconds=2.0) for _ in range(20)])
    await load.running(20)
    stale.stop()
    try:
        held = "SELECT count(*) FROM jobs j JOIN workers w ON w.id = j.locked_by WHERE w.pid = $1 AND j.status = 'processing'"
        count = await database.fetchval(held, stale.process.pid)
        assert count == 10
        await load.running(20 + count)  # the other runs them now
    finally:
        stale.go_on()
    await load.finished(seconds=10)

    async def refused() -> int:
        return len(stale.events("run_refused"))

    await until(refused, lambda n: n == count, seconds=5)
    assert sum(e["count"] for e in other.events("runs_rescued")) == count
    assert await oracle.moves(database, "processing", "pending") == count
    (lost,) = stale.events("lease_lost")
    assert lost["worker"] != lost["successor"]
    rows = {str(row["id"]): row["state"] for row in await database.fetch("SELECT id, state FROM workers")}
    assert rows[lost["worker"]] == "lost"
    assert rows[lost["successor"]] == "alive"
    # Under its new name it is worth as much as before.
    other.terminate()
    assert await other.ended() == 0
    await load.bulk(stale, [load.job("noop") for _ in range(5)])
    await load.finished(seconds=10)
    who = "SELECT DISTINCT locked_by::text FROM jobs_done WHERE id = ANY ($1)"
    assert [row[0] for row in await database.fetch(who, load.acknowledged[-5:])] == [lost["successor"]]
