"""Handlers return and raise what cannot be stored, and machines' clocks are wrong: every job ends all the same, in its turn."""

from __future__ import annotations

import httpx
import pytest

from jobflow.pool import Connection
from jobflow.statements import LUA
from tests.faults.conftest import Load, Poster, note
from tests.support.handlers import ODD
from tests.support.process import Processes
from tests.support.waiting import until

CUT_RESULT, CUT_MESSAGE = 256 * 1024, 8 * 1024  # bytes


async def test_r40_whatever_a_handler_returns_or_raises(run: Processes, load: Load, client: httpx.AsyncClient) -> None:
    process = await run.start(JOBFLOW_LEASE="15").ready()
    jobs = [(value, raises) for value in ODD for raises in (False, True)]
    ids = await load.bulk(process, [{"type": "odd", "payload": {"value": v, "raises": r}} for v, r in jobs])
    neighbours = await load.bulk(process, [load.job("noop") for _ in range(50)])
    await load.finished(seconds=120)
    results = {}
    for (value, raises), id in zip(jobs, ids, strict=True):
        answer = await client.get(f"{process.url}/jobs/{id}")
        assert answer.status_code == 200, value
        job = answer.json()
        if raises:
            assert job["status"] == "dead_letter", value
            assert job["error"]["type"] == "ValueError", value
            assert len(job["error"]["message"].encode()) <= CUT_MESSAGE, value
            assert "\0" not in job["error"]["message"]
        elif job["status"] == "completed":
            assert len(answer.content) < CUT_RESULT * 1.2, value
        else:
            assert job["error"]["type"] == "ResultMismatch", value
        if not raises:
            results[value] = job
    assert results["nul"]["result"] == results["surrogate"]["result"] == "a\ufffdb"
    assert results["not a number"]["result"] is None
    assert results["infinite"]["result"] == [None]
    assert results["no JSON"]["status"] == "dead_letter"
    for id in neighbours:
        assert (await client.get(f"{process.url}/jobs/{id}")).json()["status"] == "completed"
    assert process.events("loop_failed") == []


WRONG = """
import datetime as d, time
import jobflow.app
from tests.support import rows
seconds = {seconds}
clock = time.time
class Wrong(d.datetime):
    now = classmethod(lambda cls, tz=None: d.datetime.now(tz) + d.timedelta(seconds=seconds))
time.time = lambda: clock() + seconds
jobflow.engine.lease.datetime = jobflow.logs.datetime = Wrong
jobflow.client.uuid7 = jobflow.engine.heartbeat.uuid7 = lambda: rows.id_of(Wrong.now(d.UTC))
"""


@pytest.mark.slow
async def test_r33_the_clocks_of_two_machines_are_wrong_by_an_hour(
    run: Processes, load: Load, database: Connection
) -> None:
    """Postgres' clock is the only one that counts; Redis' is not even asked when a job is due."""
    assert [name for name, text in LUA.items() if "TIME" in text] == ["take"], "the rate limit only"
    all = [run.start(WRONG.format(seconds=seconds), JOBFLOW_LEASE="10") for seconds in (-3600, 0, 3600)]
    for process in all:
        await process.ready()
    for process in all:
        await load.bulk(process, [{**load.job("noop"), "delay": 2} for _ in range(30)])
        await load.bulk(process, [load.job("noop") for _ in range(30)])
    await load.finished(seconds=15)
    days = [abs(id.int >> 80) for id in load.acknowledged]
    assert max(days) - min(days) > 7_000_000, "milliseconds: the clocks really are wrong"
    rows = await database.fetch("SELECT extract(epoch FROM started_at - run_at) AS late FROM jobs_done")
    late = [float(row["late"]) for row in rows]
    assert min(late) >= 0, "nothing runs before its time"
    assert max(late) < 3
    assert await database.fetchval("SELECT count(DISTINCT locked_by) FROM jobs_done") == 3

    async def healthy() -> int:
        return int(
            await database.fetchval("SELECT count(*) FROM workers WHERE state = 'alive' AND lease_until > now()")
        )

    await until(healthy, lambda n: n == 3, seconds=3)
    for process in all:
        assert process.events("lease_lost") == process.events("worker_marked_lost") == []


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 10])
async def test_r32_three_processes_are_replaced_one_after_the_other_under_load(
    rounds: int, run: Processes, load: Load, database: Connection
) -> None:
    all = [run.start() for _ in range(3)]
    for process in all:
        await process.ready()
    poster = Poster(load, *all).start()
    for _ in range(rounds):
        for n in range(3):
            others = [process for process in all if process is not all[n]]
            await load.bulk(others[0], [load.job(seconds=0.2) for _ in range(100)])
            poster.processes = others  # as a balancer does, which asks /readyz
            all[n].terminate()
            assert await all[n].ended() == 0
            all[n] = await run.start().ready()
            poster.processes = [*others, all[n]]
    await poster.stop()
    await load.finished(seconds=20)
    note(f"{len(load.acknowledged)} jobs, {3 * rounds} restarts")
    assert set(poster.statuses) <= {201, 429, 503}
    assert poster.statuses.count(201) > 50
    assert len(load.lines("begin")) == len(load.lines("end")) == 300 * rounds, "each ran once"
    assert await database.fetchval("SELECT max(attempt) FROM jobs_done") == 1
    assert await database.fetchval("SELECT max(rescues) FROM jobs_done") == 0
