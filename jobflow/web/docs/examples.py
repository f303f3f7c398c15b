"""One true example for each operation: what is sent and what comes back. Tests send every one to the application."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from jobflow import __version__
from jobflow.lifecycle import Cause, Status

JSON = "application/json"
EVENTS = "text/event-stream"
TEXT = "text/plain"

ID, SECOND = "019ab3c2-5d5e-7c1a-9f0e-6b1d2c3e4f50", "019ab3c2-5d5f-7b02-8c4d-1f2e3d4c5b6a"
WORKER = "019ab3b0-1111-7a00-8a00-00000000c0de"
NOON, LATER, ENDED = "2026-01-31T12:00:00Z", "2026-01-31T12:00:02.1Z", "2026-01-31T12:00:01.1Z"


class Example(NamedTuple):
    """``answer``: JSON as Python has it, text as it is, None for no body."""

    answer: Any
    status: int = 200
    media: str = JSON
    body: Any = None
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    path: tuple[tuple[str, str], ...] = (("job_id", ID), ("name", "default"))

    @property
    def text(self) -> str:
        return self.answer if isinstance(self.answer, str) else written(self.answer)

    def curl(self, method: str, path: str, origin: str, *, token: bool) -> str:
        """The command for a shell. ``token``: whether one is asked for."""
        url = origin + path
        for name, value in self.path:
            url = url.replace(f"{{{name}}}", value)
        if self.query:
            url = f'"{url}?{self.query}"'
        words = [
            " ".join(["curl", *(["-N"] if self.media == EVENTS else []), *_verb(method, self.body), url]),
            *(['-H "Authorization: Bearer $JOBFLOW_ADMIN_TOKEN"'] if token else []),
            *(f'-H "{name}: {value}"' for name, value in self.headers),
        ]
        if self.body is not None:
            sent = json.dumps(self.body, ensure_ascii=False).replace("'", "'\\''")
            words += ['-H "Content-Type: application/json"', f"-d '{sent}'"]
        return " \\\n  ".join(words)


def _verb(method: str, body: Any) -> list[str]:
    return [] if method == "GET" else ["-X", method]


def written(tree: Any) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False)


def _job(**changes: Any) -> dict[str, Any]:
    """A job right after it was submitted, but for the changes."""
    job: dict[str, Any] = {
        "id": ID,
        "type": "email.send",
        "status": Status.PENDING.value,
        "queue": "default",
        "priority": 5,
        "payload": {"to": "user@example.com"},
        "attempt": 0,
        "max_attempts": 5,
        "run_at": NOON,
        "timeout": 300.0,
        "expires_at": None,
        "unique_key": None,
        "tags": [],
        "progress": None,
        "result": None,
        "error": None,
        "rescues": 0,
        "worker": None,
        "cancel_requested": False,
        "cancel_reason": None,
        "batch": None,
        "schedule": None,
        "trace_id": None,
        "created_at": NOON,
        "updated_at": NOON,
        "started_at": None,
        "finished_at": None,
    }
    return job | changes


def _attempt(outcome: str, **changes: Any) -> dict[str, Any]:
    ran = {"number": 1, "attempt": 1, "worker": WORKER, "started_at": NOON, "finished_at": ENDED, "outcome": outcome}
    return ran | {"error": None, "traceback": None} | changes


_ERROR = {"type": "RuntimeError", "message": "the report service gave no answer"}
_FAILED = _attempt(Cause.ERRORED.value, error=_ERROR, traceback="Traceback (most recent call last):\n  …")
_failed = {"type": "report.generate", "payload": {"name": "Q4 Report"}, "attempt": 1, "error": _ERROR, "worker": WORKER}
_failed |= {"updated_at": ENDED, "started_at": NOON}
_DEAD = _job(**_failed, status=Status.DEAD_LETTER.value, max_attempts=1, finished_at=ENDED)
_DONE = {"status": Status.COMPLETED.value, "attempt": 1, "result": {"sent_to": "user@example.com"}, "worker": WORKER}
_DONE |= {"updated_at": ENDED, "started_at": NOON, "finished_at": ENDED}


def _page(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(jobs), "next_cursor": None, "total": len(jobs), "total_capped": False, "searched": None}


def _counts(**known: int) -> dict[str, int]:
    return {status.value: known.get(status.name, 0) for status in Status}


_QUEUE = {
    "name": "default",
    "by_status": _counts(PENDING=12, PROCESSING=50, COMPLETED=1840, FAILED=3, DEAD_LETTER=2),
    "ready": 12,
    "oldest_ready_age": 0.4,
    "in_per_second": 31.5,
    "out_per_second": 32.0,
    "paused": False,
    "paused_reason": None,
    "paused_until": None,
    "created_at": NOON,
}
_STREAM = "retry: 2000\n\n"


def _event(name: str, number: int, data: Any) -> str:
    return f"event: {name}\nid: {number}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


EXAMPLES: Mapping[str, Example] = {
    "submitJob": Example(
        _job(status=Status.SCHEDULED.value, run_at="2026-01-31T12:01:00Z", tags=["order:4711"]),
        201,
        body={"type": "email.send", "payload": {"to": "user@example.com"}, "delay": 60, "tags": ["order:4711"]},
        headers=(("Idempotency-Key", "order-4711-mail"),),
    ),
    "submitJobs": Example(
        {"jobs": [{"id": ID}, {"id": SECOND}]},
        201,
        body={
            "jobs": [
                {"type": "email.send", "payload": {"to": "a@example.com"}},
                {"type": "email.send", "payload": {"to": "b@example.com"}, "priority": 0},
            ]
        },
    ),
    "listJobs": Example(
        _page(_job(**_failed, status=Status.FAILED.value, run_at=LATER)),
        query="status=failed&type=report.generate&limit=1",
    ),
    "getJob": Example(
        _job(**_failed, status=Status.FAILED.value, run_at=LATER, attempts=[_FAILED]),
        query="wait=20",
    ),
    "jobEvents": Example(
        _STREAM
        + _event("status", 1, _job())
        + _event("status", 2, _job(**_DONE, attempts=[_attempt(Cause.COMPLETED.value)]))
        + _event("end", 3, {}),
        media=EVENTS,
    ),
    "events": Example(
        _STREAM + _event("jobs", 1, 1) + _event("queues", 1, 1) + _event("workers", 2, 2) + ": still here\n\n",
        media=EVENTS,
    ),
    "retryJob": Example(_job(**_failed, attempts=[_FAILED])),
    "cancelJob": Example(
        _job(status=Status.CANCELLED.value, cancel_reason="cancelled by a person", finished_at=ENDED, attempts=[])
    ),
    "discardJob": Example(
        _job(
            status=Status.DEAD_LETTER.value,
            error={"type": "Discarded", "message": "Discarded by a person."},
            finished_at=ENDED,
            attempts=[],
        )
    ),
    "deleteJob": Example(None, 204),
    "listDeadJobs": Example(_page(_DEAD), query="type=report.generate"),
    "retryDeadJobs": Example({"matched": 334}, 202, body={"type": "image.process"}),
    "listQueues": Example({"items": [_QUEUE]}),
    "getQueue": Example(_QUEUE),
    "listWorkers": Example(
        {
            "items": [
                {
                    "id": WORKER,
                    "kind": "process",
                    "host": "app-1",
                    "pid": 7,
                    "version": __version__,
                    "state": "alive",
                    "late": False,
                    "concurrency": 50,
                    "running": 50,
                    "types": ["email.send", "report.generate"],
                    "started_at": NOON,
                    "beat_at": ENDED,
                    "lease_until": "2026-01-31T12:00:16.1Z",
                }
            ]
        }
    ),
    "listTypes": Example(
        {
            "items": [
                {
                    "name": "email.send",
                    "queue": "default",
                    "priority": 5,
                    "timeout": 300.0,
                    "max_attempts": 5,
                    "payload_schema": {"type": "object"},
                }
            ]
        }
    ),
    "metrics": Example(
        {
            "total_jobs": 1907,
            "active_jobs": 50,
            "completed_jobs": 1840,
            "failed_jobs": 3,
            "dead_letter_jobs": 2,
            "queue_length": 12,
            "retry_queue_length": 3,
            "dlq_length": 2,
            "by_status": _QUEUE["by_status"],
            "queues": [_QUEUE],
        }
    ),
    "livez": Example("ok\n", media=TEXT),
    "readyz": Example(
        "[+] engine is running\n[+] postgres\n[+] redis\nok\n",
        media=TEXT,
        query="verbose",
    ),
    "index": Example("Jobflow: background jobs over REST. Submit work, see it run, never lose it.\n…\n", media=TEXT),
    "openapi": Example('{"openapi":"3.1.0","info":{"title":"Jobflow", …}, "paths":{ … }}\n'),
    "docs": Example("<!doctype html>\n…\n", media="text/html"),
}

PROBLEM = {
    "type": "urn:jobflow:problem:invalid",
    "title": "The request does not fit",
    "status": 422,
    "detail": "/priority: priority must be 0 to 9, 0 runs first",
    "instance": "/jobs",
    "request_id": "5f1c9e0a7b21-40",
    "errors": [{"pointer": "/priority", "detail": "priority must be 0 to 9, 0 runs first"}],
}
