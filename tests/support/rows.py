"""Rows as a test wants them: jobs in any state, made by hand with the counters that belong to them, and a look at them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from jobflow.lifecycle import FINAL, NewJob, Run, Status
from jobflow.pool import Connection
from jobflow.store import DAY_MS

NOBODY = UUID("01999999-0000-7000-8000-00000000dead")  # a worker that is not registered


def ago(seconds: float) -> datetime:
    """A moment before now; after it when negative."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def id_of_day(day: int, number: int = 0) -> UUID:
    """A UUIDv7 made on that day."""
    return UUID(int=(((day * DAY_MS) + 1_000 + number) << 80) | (7 << 76) | (2 << 62) | number)


def id_of(created_at: datetime) -> UUID:
    """A UUIDv7 made at that time."""
    millis = int(created_at.timestamp() * 1000)
    return UUID(int=(millis << 80) | (uuid7().int & ((1 << 80) - 1)))


def new_job(**changes: Any) -> NewJob:
    values: dict[str, Any] = {
        "id": uuid7(),
        "type": "noop",
        "queue": "default",
        "priority": 5,
        "payload": b"{}",
        "max_attempts": 5,
        "timeout": 300.0,
    }
    return NewJob(**values | changes)


async def add_worker(
    connection: Connection,
    *,
    state: str = "alive",
    lease: float = 60.0,
    types: Sequence[str] = ("noop",),
    concurrency: int = 10,
) -> UUID:
    """A process with ``lease`` seconds left."""
    id = uuid7()
    await connection.execute(
        "INSERT INTO workers (id, host, pid, version, state, concurrency, types, started_at, beat_at, lease_until) "
        "VALUES ($1, 'host', 1, '0', $2, $3, $4, now(), now(), clock_timestamp() + make_interval(secs => $5))",
        *(id, state, concurrency, list(types), lease),
    )
    return id


async def add_job(connection: Connection, status: str = "pending", **columns: Any) -> UUID:
    """A job in any state, completed ones in jobs_done. ``columns``: what differs from an ordinary one."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": id_of(columns["created_at"]) if "created_at" in columns else uuid7(),
        "owner": 0,
        "queue": "default",
        "type": "noop",
        "priority": 5,
        "attempt": 0,
        "max_attempts": 5,
        "rescues": 0,
        "run_epoch": 0,
        "run_at": now - timedelta(seconds=1),
        "timeout": 300.0,
        "created_at": now - timedelta(seconds=2),
        "payload": "{}",
        "tags": [],
    }
    if status in ("processing", "completed"):
        values |= {"locked_by": NOBODY, "attempt": 1, "run_epoch": 7, "started_at": now}
    if status in FINAL:
        values["finished_at"] = now
    if status == Status.COMPLETED:
        table = "jobs_done"
        values["flags"] = 0
    else:
        table = "jobs"
        values |= {"status": status, "updated_at": now}
    values |= columns
    await connection.execute("INSERT INTO queues (name) VALUES ($1) ON CONFLICT DO NOTHING", values["queue"])
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", *values.values())
    await connection.execute(
        "INSERT INTO counter_deltas (queue, before, after, bucket, n) "
        "VALUES ($1, '', $2, CASE WHEN $2 = 'completed' THEN job_day($3) ELSE 0 END, 1)",
        *(values["queue"], status, values["id"]),
    )
    return UUID(str(values["id"]))


async def row_of(connection: Connection, id: UUID) -> dict[str, Any] | None:
    """The whole row, wherever it is; ``status`` completed for one in jobs_done."""
    if live := await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", id):
        return dict(live)
    done = await connection.fetchrow("SELECT * FROM jobs_done WHERE id = $1", id)
    return None if done is None else {**done, "status": "completed"}


async def status_of(connection: Connection, id: UUID) -> str | None:
    row = await row_of(connection, id)
    return None if row is None else row["status"]


async def run_of(connection: Connection, id: UUID) -> Run:
    """The run that the row of a processing job stands for."""
    row = await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", id)
    assert row is not None
    names = {field.name for field in msgspec.structs.fields(Run)} - {"worker"}
    return Run(worker=row["locked_by"], **{name: value for name, value in row.items() if name in names})


async def real_counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Jobs by queue and status, counted one by one."""
    rows = await connection.fetch(
        "SELECT queue, status, count(*) AS n FROM jobs GROUP BY 1, 2 "
        "UNION ALL SELECT queue, 'completed', count(*) FROM jobs_done GROUP BY 1"
    )
    return {(row["queue"], row["status"]): row["n"] for row in rows}


async def history_of(connection: Connection, id: UUID) -> list[dict[str, Any]]:
    rows = await connection.fetch("SELECT * FROM job_attempts WHERE job_id = $1 ORDER BY run_epoch", id)
    return [dict(row) for row in rows]
