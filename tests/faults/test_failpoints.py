"""A process is killed between two steps, at each point there is; the next start finishes everything, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from jobflow.app import create_app
from jobflow.engine import scheduler
from jobflow.failpoints import POINTS
from jobflow.pool import Connection
from jobflow.settings import Settings
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import Process, Processes
from tests.support.rows import add_job, add_worker, ago
from tests.support.waiting import until

REDIS_AWAY = "redis://127.0.0.1:1/0"
QUICK = {"JOBFLOW_GRACE": "0.2", "WORKER_CONCURRENCY": "4"}
KEYED: dict[str, Any] = {"type": "noop", "payload": {"keyed": True}}
KEY = {"Idempotency-Key": "once"}


async def prepare(database: Connection) -> None:
    """What a process finds that starts after others: ready jobs that Redis does not know, and runs of a dead process."""
    dead = await add_worker(database, lease=-1)
    for n in range(3):
        await add_job(database, type="noop", run_at=ago(10 + n))
        await add_job(database, type="fail.once", run_at=ago(10 + n))
        await add_job(database, "processing", type="noop", locked_by=dead, run_at=ago(10 + n))
    await add_job(database, type="sleep", run_at=ago(10), payload='{"seconds": 0.5}')


async def post(http: httpx.AsyncClient, load: Load, victim: Process) -> None:
    """A request without and one with a key, each until it is answered, or the process died."""
    jobs: list[tuple[dict[str, Any], dict[str, str]]] = [({"type": "noop"}, {}), (KEYED, KEY)]
    while jobs and victim.process.poll() is None:
        job, key = jobs[0]
        try:
            answer = await http.post(f"{victim.url}/jobs", json=job, headers=key)
        except httpx.TransportError:
            await asyncio.sleep(0.05)  # it does not listen yet, or it died: then whoever sent a key asks again below
            continue
        if answer.status_code != 201:
            continue  # a point raised: the client tries again
        load.acknowledged.append(UUID(answer.json()["id"]))
        del jobs[0]


async def all_completed(load: Load, database: Connection) -> None:
    async def left() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs"))

    await until(left, lambda n: n == 0, seconds=60)
    found = await oracle.statuses(database)
    await oracle.check(database, [*load.acknowledged, *found])
    assert set(found.values()) == {"completed"}
    assert await database.fetchval("SELECT count(*) FROM jobs_done WHERE payload->>'keyed' = 'true'") == 1


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(
    point: str, run: Processes, load: Load, database: Connection, settings: Settings, client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await prepare(database)
    redis = {"REDIS_URL": REDIS_AWAY} if point.startswith("fallback.") else {}
    victim = run.start(JOBFLOW_FAILPOINTS=f"{point}=kill", **QUICK, **redis)
    await post(client, load, victim)
    if point.startswith("drain."):
        victim.terminate()
    assert await victim.ended() == -9

    monkeypatch.setattr(scheduler, "OVERDUE", timedelta(seconds=1))  # the sweep finds what Redis was not told
    app = create_app(msgspec.structs.replace(settings, lease=4.0))
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        answer = await http.post("/jobs", json=KEYED, headers=KEY)
        assert answer.status_code == 201, answer.text
        load.acknowledged.append(UUID(answer.json()["id"]))
        await all_completed(load, database)


async def test_an_error_at_every_point_once_stops_nothing(
    run: Processes, load: Load, database: Connection, client: httpx.AsyncClient
) -> None:
    await prepare(database)
    hasty = "import jobflow.engine.scheduler as s; s.OVERDUE /= 5"
    everywhere = ",".join(f"{point}=raise@1" for point in POINTS)
    process = run.start(hasty, JOBFLOW_FAILPOINTS=everywhere, **QUICK)
    await post(client, load, process)
    await all_completed(load, database)
    assert process.process.poll() is None
    assert "JOBFLOW_FAILPOINTS is set" in process.events("warned")[0]["message"]
