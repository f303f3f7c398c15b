"""What is going on, in numbers: queues, processes and totals, as people see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from jobflow.lifecycle import Moment, Status


class Totals(msgspec.Struct, kw_only=True):
    """Jobs by status. ``ready``: pending, or scheduled or failed and due. ``retrying``: failed, not yet due."""

    by_status: dict[str, int]
    total: int
    ready: int
    retrying: int


class Queue(msgspec.Struct, kw_only=True):
    """A queue: depth by status, age of its oldest ready job in seconds, jobs in and out per second over the last minute."""

    name: str
    by_status: dict[str, int]
    ready: int
    oldest_ready_age: float | None
    in_per_second: float
    out_per_second: float
    paused: bool
    paused_reason: str | None
    paused_until: Moment | None
    created_at: Moment


class Worker(msgspec.Struct, kw_only=True):
    """A worker process and its lease. ``state``: alive, draining, lost or stopped; ``late``: its lease has lapsed."""

    id: UUID
    kind: str
    host: str
    pid: int
    version: str
    state: str
    late: bool
    concurrency: int
    running: int
    types: Sequence[str]
    started_at: Moment
    beat_at: Moment
    lease_until: Moment


class Minute(msgspec.Struct, kw_only=True):
    """One minute of the charts: jobs submitted and completed, attempts that failed, jobs that became dead letters."""

    minute: Moment
    entered: int
    completed: int
    failed: int
    dead: int


class Overview(NamedTuple):
    """Everything at one moment."""

    queues: list[Queue]
    workers: list[Worker]
    minutes: list[Minute]


Rows = Sequence[Mapping[str, Any]]  # of statements, read as JSON


def build_totals(counts: Rows, due: Rows) -> Totals:
    by_status = dict.fromkeys((status.value for status in Status), 0)
    for row in counts:
        by_status[row["status"]] += row["n"]
    fell_due = sum(row["n"] for row in due)
    failed_due = sum(row["n"] for row in due if row["status"] == Status.FAILED)
    return Totals(
        by_status=by_status,
        total=sum(by_status.values()),
        ready=by_status[Status.PENDING] + fell_due,
        retrying=max(by_status[Status.FAILED] - failed_due, 0),
    )


def build_queues(settings: Rows, counts: Rows, due: Rows, oldest: Rows, rates: Rows) -> list[Queue]:
    counts_of, due_of = _by_queue(counts), _by_queue(due)
    ages = {row["queue"]: row["age"] for row in oldest}
    flows = {row["queue"]: row for row in rates}
    queues = []
    for row in settings:
        name = row["name"]
        own = build_totals(counts_of.get(name, ()), due_of.get(name, ()))
        flow = flows.get(name, {"entered": None, "finished": None})
        queues.append(
            {
                "by_status": own.by_status,
                "ready": own.ready,
                "oldest_ready_age": ages.get(name),
                "in_per_second": flow["entered"] or 0.0,
                "out_per_second": flow["finished"] or 0.0,
                **row,
            }
        )
    return msgspec.convert(queues, list[Queue])


def _by_queue(rows: Rows) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row["queue"], []).append(row)
    return grouped


def build_worker(row: Mapping[str, Any]) -> Worker:
    late = not row["lease_valid"] and row["state"] in ("alive", "draining")
    return msgspec.convert({**row, "late": late}, Worker)


def build_minutes(rows: Rows) -> list[Minute]:
    return msgspec.convert(rows, list[Minute])
