"""The schema at its head as SQLAlchemy Core tables: for lists with free filters, and compared with the migrations by a test."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()


def _table(name: str, key: str, /, **columns: tuple[Any, bool]) -> Table:
    keys = key.split()
    return Table(
        name, metadata, *(Column(c, kind, nullable=null, primary_key=c in keys) for c, (kind, null) in columns.items())
    )


_time, _maybe_time = (DateTime(timezone=True), False), (DateTime(timezone=True), True)
_text, _maybe_text = (Text, False), (Text, True)
_int, _maybe_int, _big = (Integer, False), (Integer, True), (BigInteger, False)
_uuid, _maybe_uuid = (Uuid, False), (Uuid, True)
_tags, _json, _maybe_json = (ARRAY(Text), False), (JSONB, False), (JSONB, True)

jobs = _table(
    "jobs", "id",
    id=_uuid, owner=_big, queue=_text, type=_text, priority=(SmallInteger, False), status=_text,
    attempt=_int, max_attempts=_int, rescues=_int, run_epoch=_big, locked_by=_maybe_uuid,
    run_at=_time, timeout=(Double, False), expires_at=_maybe_time,
    created_at=_time, updated_at=_time, started_at=_maybe_time, finished_at=_maybe_time,
    cancel_requested_at=_maybe_time, cancel_reason=_maybe_text,
    unique_key=_maybe_text, group_key=_maybe_text, slot=_maybe_int, key_slot=_maybe_int, flags=_int,
    batch=_maybe_uuid, schedule=_maybe_text, trace_id=_maybe_text,
    tags=_tags, payload=_json, error_type=_maybe_text, error_message=_maybe_text,
)  # fmt: skip

jobs_done = _table(
    "jobs_done", "id",
    id=_uuid, owner=_big, queue=_text, type=_text, priority=(SmallInteger, False),
    attempt=_int, max_attempts=_int, rescues=_int, run_epoch=_big, locked_by=_maybe_uuid,
    run_at=_time, timeout=(Double, False), expires_at=_maybe_time,
    created_at=_time, started_at=_maybe_time, finished_at=_time,
    unique_key=_maybe_text, group_key=_maybe_text, flags=_int,
    batch=_maybe_uuid, schedule=_maybe_text, trace_id=_maybe_text,
    tags=_tags, payload=_json, result=_maybe_json, error_type=_maybe_text, error_message=_maybe_text,
)  # fmt: skip

job_attempts = _table(
    "job_attempts", "job_id run_epoch",
    job_id=_uuid, run_epoch=_big, attempt=_int, worker=_maybe_uuid, started_at=_maybe_time, finished_at=_time,
    outcome=_text, error_type=_maybe_text, error_message=_maybe_text, traceback=_maybe_text,
)  # fmt: skip

workers = _table(
    "workers", "id",
    id=_uuid, kind=_text, host=_text, pid=_int, version=_text, state=_text, concurrency=_int, running=_int,
    types=_tags, started_at=_time, beat_at=_time, lease_until=_time,
)  # fmt: skip

queues = _table(
    "queues", "name",
    name=_text, paused_at=_maybe_time, paused_until=_maybe_time, paused_reason=_maybe_text, created_at=_time,
)  # fmt: skip

idempotency_keys = _table(
    "idempotency_keys", "owner key",
    owner=_big, key=_text, fingerprint=(LargeBinary, False), job_ids=(ARRAY(Uuid), False),
    created_at=_time, expires_at=_time,
)  # fmt: skip

counter_deltas = _table("counter_deltas", "", queue=_text, before=_text, after=_text, bucket=_int, n=_big, at=_time)
counters = _table("counters", "queue before after bucket", queue=_text, before=_text, after=_text, bucket=_int, n=_big)
counter_minutes = _table(
    "counter_minutes", "minute queue before after", minute=_time, queue=_text, before=_text, after=_text, n=_big
)
