"""A claimed run, as a worker gets it; whatever a test does not care about is filled in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jobflow.lifecycle import Run

JOB = UUID("01999999-0000-7000-8000-000000000001")
WORKER = UUID("01999999-0000-7000-8000-000000000002")
DUE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "id": JOB,
        "run_epoch": 7,
        "worker": WORKER,
        "type": "some.type",
        "queue": "default",
        "priority": 5,
        "payload": "{}",
        "attempt": 1,
        "max_attempts": 5,
        "rescues": 0,
        "timeout": 300.0,
        "run_at": DUE,
        "started_at": DUE,
    }
    return Run(**values | changes)
