"""Bodies: what people may send, with a sentence for everything that does not fit, and what they get beyond a Job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from jobflow.errors import Fault, Invalid
from jobflow.lifecycle import Job, NewJob
from jobflow.overview import Queue, Worker
from jobflow.payloads import token
from jobflow.registry import pointer as pointer_of

T = TypeVar("T")

_TIME = 'must be a time with a zone, such as "2030-01-31T12:00:00Z"'

# What a member must be, in words; said whatever is wrong with it.
SENTENCES: Mapping[str, str] = {
    "type": "type must be 1 to 128 of A-Z a-z 0-9 . _ : -",
    "payload": "payload must be an object",
    "queue": "queue must be 1 to 64 of a-z 0-9 _ -",
    "priority": "priority must be 0 to 9, 0 runs first",
    "max_attempts": "max_attempts must be 1 to 100, all runs counted",
    "run_at": f"run_at {_TIME}",
    "delay": "delay must be 0 to 315,360,000 seconds (ten years)",
    "timeout": "timeout must be 0.1 to 86,400 seconds",
    "expires_at": f"expires_at {_TIME}",
    "unique_key": "unique_key must be a text of 1 to 255 characters",
    "on_conflict": 'on_conflict must be "reject", "return" or "replace"',
    "tags": "tags must be at most 20 texts of 1 to 64 characters",
    "ids": "ids must be 1 to 10,000 job ids",
    "tag": "tag must be a text of 1 to 64 characters",
    "error": "error must be a text of 1 to 200 characters",
    "created_after": f"created_after {_TIME}",
    "created_before": f"created_before {_TIME}",
    "all": "all must be true or false",
}


class JobList(msgspec.Struct, kw_only=True):
    """A page of jobs, newest first. ``next_cursor`` is null on the last page.

    ``total``: exact up to 10,000; with ``total_capped`` there are more. ``searched``: a text or payload filter looked at
    so many of the newest jobs only.
    """

    items: list[Job]
    next_cursor: str | None = None
    total: int
    total_capped: bool = False
    searched: int | None = None


class BulkItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``existing``: a live job with this unique_key was there, and is returned instead."""

    id: UUID
    existing: bool = False


class BulkAnswer(msgspec.Struct, kw_only=True):
    jobs: list[BulkItem]


class Matched(msgspec.Struct, kw_only=True):
    matched: int


class QueueList(msgspec.Struct, kw_only=True):
    items: list[Queue]


class WorkerList(msgspec.Struct, kw_only=True):
    items: list[Worker]


class TypeView(msgspec.Struct, kw_only=True):
    """A registered job type: its defaults, and the JSON Schema of its payload. ``timeout`` in seconds."""

    name: str
    queue: str
    priority: int
    timeout: float
    max_attempts: int
    payload_schema: dict[str, Any]


class TypeList(msgspec.Struct, kw_only=True):
    items: list[TypeView]


class MetricsView(msgspec.Struct, kw_only=True):
    """Counts of the jobs that are kept; ``queue_length``: those that could start now, paused queues included."""

    total_jobs: int
    active_jobs: int
    completed_jobs: int
    failed_jobs: int
    dead_letter_jobs: int
    queue_length: int
    retry_queue_length: int
    dlq_length: int
    by_status: dict[str, int]
    queues: list[Queue]


def fit(tree: Any, shape: type[T], at: str = "") -> T:
    """Turn a checked tree into a Struct.

    at: JSON Pointer of the tree in the body.
    Raises Invalid with a fault for every member that does not fit, is missing or unknown.
    """
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError as error:
        raise Invalid(*(_faults(tree, shape, at) or [Fault(at, str(error))])) from None


def _faults(tree: Any, shape: Any, at: str) -> list[Fault]:
    if not isinstance(tree, dict):
        return [Fault(at, "must be a JSON object")]
    fields = {field.name: field for field in msgspec.structs.fields(shape)}
    faults = [
        Fault(at + token(name), f"is not a member here; these are: {', '.join(fields)}")
        for name in tree
        if name not in fields
    ]
    for name, field in fields.items():
        if name not in tree:
            if field.required:
                faults.append(Fault(at + token(name), f"is missing: {SENTENCES.get(name, name)}"))
            continue
        try:
            msgspec.convert(tree[name], field.type)
        except msgspec.ValidationError as error:
            said, _, place = str(error).partition(" - at ")
            faults.append(Fault(at + token(name) + pointer_of(place.strip("`") or "$"), SENTENCES.get(name, said)))
    return faults[:20]


def submitted_job(job: NewJob, created_at: datetime, at: datetime) -> Job:
    """A job as it is right after its commit. ``at``: when it is due."""
    return Job(
        id=job.id,
        type=job.type,
        status=job.status,
        queue=job.queue,
        priority=job.priority,
        payload=msgspec.Raw(job.payload),
        attempt=0,
        max_attempts=job.max_attempts,
        run_at=at.astimezone(UTC),
        timeout=job.timeout,
        expires_at=None if job.expires_at is None else job.expires_at.astimezone(UTC),
        unique_key=job.unique_key,
        tags=job.tags,
        created_at=created_at,
        updated_at=created_at,
    )
