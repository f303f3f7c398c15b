"""What the dashboard's tests share: the application behind a token, and an evil job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import msgspec
import pytest

from jobflow.app import create_app
from jobflow.pool import Connection
from jobflow.settings import Settings
from tests.support.rows import NOBODY, add_job

TOKEN = "a-token-of-visible-characters"
EVIL = "<script>boom()</script><img src=x onerror=boom()>{{7777777777*7}}${7777777777*7}\"'><b hx-get=/evil hx-trigger=load>x</b></pre></textarea>"


@pytest.fixture
async def locked(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that asks for a token."""
    app = create_app(msgspec.structs.replace(settings, admin_token=TOKEN))
    transport = httpx.ASGITransport(app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
async def evil(database: Connection) -> list[UUID]:
    """Two jobs, dead and done, with markup wherever people may write text."""
    payload = msgspec.json.encode({EVIL: [EVIL, {"x": EVIL}]}).decode()
    common = {"payload": payload, "tags": [EVIL[:64]], "unique_key": EVIL, "error_type": EVIL, "error_message": EVIL}
    dead = await add_job(database, "dead_letter", **common, type="a:b.c-d_e", attempt=5)
    done = await add_job(database, "completed", **common, result=payload)
    cancelled = await add_job(database, "cancelled", payload=payload, cancel_reason=EVIL)
    for id in (dead, done):
        await database.execute(
            "INSERT INTO job_attempts (job_id, run_epoch, attempt, worker, started_at, finished_at, outcome, error_type, "
            "error_message, traceback) VALUES ($1, 1, 1, $2, now(), now(), 'errored', $3, $3, $3)",
            *(id, NOBODY, EVIL),
        )
    await database.execute(
        "INSERT INTO queues (name, paused_at, paused_reason) VALUES ('default', now(), $1) "
        "ON CONFLICT (name) DO UPDATE SET paused_at = now(), paused_reason = $1",
        EVIL,
    )
    await database.execute(
        "INSERT INTO workers (id, host, pid, version, state, concurrency, types, started_at, beat_at, lease_until) "
        "VALUES (gen_random_uuid(), $1, 1, $1, 'lost', 1, ARRAY[$1], now(), now(), now() - interval '1 hour')",
        EVIL,
    )
    return [dead, done, cancelled]
