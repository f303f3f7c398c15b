"""The life of a job: its states, what moves it from one to the next, and how a run ends.

This module alone decides which moves are legal. It does no I/O and reads no clock. SQL gets its words from ``WORDS``,
the README its diagram from ``mermaid()``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from jobflow.errors import Conflict

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]  # a time with a zone


class Status(StrEnum):
    WAITING = "waiting"  # for other jobs to end
    SCHEDULED = "scheduled"  # for its run_at
    PENDING = "pending"  # ready; the next free worker takes it
    PROCESSING = "processing"  # a worker runs it, under its process's lease
    FAILED = "failed"  # the last attempt failed; runs again at run_at
    COMPLETED = "completed"  # for good
    DEAD_LETTER = "dead_letter"  # out of attempts or failed for good; only a person brings it back
    CANCELLED = "cancelled"  # stopped on purpose; only a person brings it back


class Cause(StrEnum):
    CLAIMED = "claimed"  # a worker took it
    COMPLETED = "completed"  # the handler returned
    ERRORED = "errored"  # the handler raised, attempts are left
    EXHAUSTED = "exhausted"  # the handler raised, no attempt is left
    SNOOZED = "snoozed"  # the handler asked for later
    RELEASED = "released"  # a draining process handed it back unfinished
    HANDED_BACK = "handed_back"  # this process has no handler for it, another has
    LOST = "lost"  # its worker process was lost: ready at once
    LOST_AGAIN = "lost_again"  # the second time: ready after a wait
    GIVEN_UP = "given_up"  # the third time
    CANCELLED = "cancelled"  # a person or the handler stopped it
    EXPIRED = "expired"  # it was not started before expires_at
    REPLACED = "replaced"  # a newer job with its unique_key took its place
    DISCARDED = "discarded"  # a person or the handler gave it up
    RETRIED = "retried"  # a person made it runnable again


_STOPS = {
    Cause.CANCELLED: Status.CANCELLED,
    Cause.EXPIRED: Status.CANCELLED,
    Cause.REPLACED: Status.CANCELLED,
    Cause.DISCARDED: Status.DEAD_LETTER,
}

MOVES: Mapping[Status, Mapping[Cause, Status]] = MappingProxyType(
    {
        Status.WAITING: _STOPS,
        Status.PENDING: {Cause.CLAIMED: Status.PROCESSING, **_STOPS},
        Status.SCHEDULED: {Cause.CLAIMED: Status.PROCESSING, Cause.RETRIED: Status.PENDING, **_STOPS},
        Status.FAILED: {Cause.CLAIMED: Status.PROCESSING, Cause.RETRIED: Status.PENDING, **_STOPS},
        Status.PROCESSING: {
            Cause.COMPLETED: Status.COMPLETED,
            Cause.ERRORED: Status.FAILED,
            Cause.EXHAUSTED: Status.DEAD_LETTER,
            Cause.SNOOZED: Status.SCHEDULED,
            Cause.RELEASED: Status.PENDING,
            Cause.HANDED_BACK: Status.SCHEDULED,
            Cause.LOST: Status.PENDING,
            Cause.LOST_AGAIN: Status.SCHEDULED,
            Cause.GIVEN_UP: Status.DEAD_LETTER,
            Cause.CANCELLED: Status.CANCELLED,
            Cause.DISCARDED: Status.DEAD_LETTER,
        },
        Status.DEAD_LETTER: {Cause.RETRIED: Status.PENDING},
        Status.CANCELLED: {Cause.RETRIED: Status.PENDING, Cause.DISCARDED: Status.DEAD_LETTER},
        Status.COMPLETED: {},
    }
)


def sources(cause: Cause) -> tuple[Status, ...]:
    """The states a cause can move a job from."""
    return tuple(status for status, moves in MOVES.items() if cause in moves)


FINAL = (Status.COMPLETED, Status.DEAD_LETTER, Status.CANCELLED)
OPEN = sources(Cause.CLAIMED)  # a worker may take them once run_at has come
LIVE = tuple(status for status in Status if status not in FINAL)  # what holds a unique_key
UNFINISHED_BY_TIME = (Status.SCHEDULED, Status.FAILED)  # keep their status when due, until claimed

RESCUES = 3  # the third lost worker is the end
RESCUE_WAIT = 5.0  # seconds before a job that lost two workers runs again
HAND_BACK_WAIT = 1.0  # seconds until a job without a handler here may be taken again


def _words(words: tuple[StrEnum, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


# Placeholders of the .sql files. Literals, because the planner proves a partial index only from literals.
WORDS: Mapping[str, str] = MappingProxyType(
    {status.value: f"'{status}'" for status in Status}
    | {
        "open": _words(OPEN),
        "live": _words(LIVE),
        "final": _words(FINAL),
        "later": _words(UNFINISHED_BY_TIME),
        "losses": _words((Cause.LOST, Cause.LOST_AGAIN, Cause.GIVEN_UP)),
        "retryable": _words(sources(Cause.RETRIED)),
        "cancellable": _words(tuple(s for s in sources(Cause.CANCELLED) if s is not Status.PROCESSING)),
        "discardable": _words(tuple(s for s in sources(Cause.DISCARDED) if s is not Status.PROCESSING)),
        "expirable": _words(tuple(s for s in sources(Cause.EXPIRED) if s is not Status.PROCESSING)),
    }
)


class NewJob(msgspec.Struct, kw_only=True):
    """A checked job, every default filled in, ready to be inserted. Postgres sets created_at and a due run_at."""

    id: UUID
    type: str
    queue: str
    priority: int
    payload: bytes  # JSON
    max_attempts: int
    timeout: float  # seconds
    owner: int = 0
    run_at: datetime | None = None  # absolute, or
    delay: float | None = None  # seconds from now by Postgres' clock; neither: at once
    expires_at: datetime | None = None
    unique_key: str | None = None
    on_conflict: Literal["reject", "return", "replace"] = "reject"
    tags: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        return Status.SCHEDULED if self.run_at or self.delay else Status.PENDING


class JobError(msgspec.Struct, frozen=True):
    type: str
    message: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a job's history. ``number`` counts from 1 over the whole history, unlike ``Job.attempt``."""

    number: int
    attempt: int
    worker: UUID | None
    started_at: Moment | None
    finished_at: Moment | None
    outcome: str  # the cause that ended it, or "processing"
    error: JobError | None = None
    traceback: str | None = None


class Job(msgspec.Struct, kw_only=True):
    """A job as people see it: field for field the JSON of the contract. Times are UTC, durations seconds."""

    id: UUID
    type: str
    status: str
    queue: str
    priority: int
    payload: msgspec.Raw
    attempt: int
    max_attempts: int
    run_at: Moment
    timeout: float
    expires_at: Moment | None = None
    unique_key: str | None = None
    tags: Sequence[str] = ()
    progress: None = None
    result: msgspec.Raw | None = None
    error: JobError | None = None
    rescues: int = 0
    worker: UUID | None = None
    cancel_requested: bool = False
    cancel_reason: str | None = None
    batch: UUID | None = None
    schedule: str | None = None
    trace_id: str | None = None
    created_at: Moment
    updated_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    attempts: list[Attempt] | msgspec.UnsetType = msgspec.UNSET


class Run(msgspec.Struct):
    """One claimed run of a job: what a worker needs, and the fence ``(id, run_epoch, worker)``.

    The order of the fields is that of the columns in claim_jobs.sql, which are unpacked into them 30,000 times a second.
    """

    worker: UUID
    queue: str
    id: UUID
    run_epoch: int
    type: str
    priority: int
    payload: str  # JSON, as Postgres gave it
    attempt: int  # this run included
    max_attempts: int
    rescues: int
    timeout: float  # seconds
    run_at: datetime
    started_at: datetime


class Failure(msgspec.Struct, frozen=True):
    type: str
    message: str
    traceback: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends: a value, made by the functions below, written by the store if the fence still holds."""

    run: Run
    cause: Cause
    after: Status
    attempt: int
    rescues: int
    delay: float | None = None  # seconds until it may run again; None keeps run_at
    result: bytes | None = None  # JSON
    failure: Failure | None = None
    reason: str | None = None  # why it was cancelled
    recorded: bool = True  # whether this run gets a row in the history


_ENDS = MOVES[Status.PROCESSING]


def _end(run: Run, cause: Cause, *, attempt: int | None = None, rescues: int | None = None, **columns: Any) -> Change:
    attempt, rescues = run.attempt if attempt is None else attempt, run.rescues if rescues is None else rescues
    return Change(run=run, cause=cause, after=_ENDS[cause], attempt=attempt, rescues=rescues, **columns)


def complete(run: Run, result: bytes | None) -> Change:
    # Not by _end: most runs end this way, and what is done for each of them counts.
    return Change(
        run=run, cause=Cause.COMPLETED, after=Status.COMPLETED, attempt=run.attempt, rescues=run.rescues, result=result
    )


def fail(run: Run, failure: Failure, delay: float) -> Change:
    """The handler raised: again after ``delay`` seconds, or never when the attempts are used up."""
    if run.attempt >= run.max_attempts:
        return _end(run, Cause.EXHAUSTED, failure=failure)
    return _end(run, Cause.ERRORED, failure=failure, delay=delay)


def discard(run: Run, failure: Failure) -> Change:
    return _end(run, Cause.DISCARDED, failure=failure)


def cancel(run: Run, reason: str) -> Change:
    return _end(run, Cause.CANCELLED, reason=reason)


def snooze(run: Run, seconds: float) -> Change:
    return _end(run, Cause.SNOOZED, attempt=run.attempt - 1, delay=seconds)


def release(run: Run) -> Change:
    """A draining process hands the run back: no attempt is used up, and it keeps its place in the order."""
    return _end(run, Cause.RELEASED, attempt=run.attempt - 1)


def unstart(run: Run) -> Change:
    """Hand back a claim whose handler never started: as if it had not been made."""
    return _end(run, Cause.RELEASED, attempt=run.attempt - 1, recorded=False)


def hand_back(run: Run) -> Change:
    return _end(run, Cause.HANDED_BACK, attempt=run.attempt - 1, delay=HAND_BACK_WAIT, recorded=False)


def lose(run: Run) -> Change:
    """The worker process is lost. No attempt is used up, but the third loss is the end: the payload may be a poison."""
    failure = Failure("WorkerLost", "The worker process did not end this run: it stopped, or it hangs.")
    rescues = run.rescues + 1
    if rescues >= RESCUES:
        return _end(run, Cause.GIVEN_UP, attempt=run.attempt - 1, rescues=rescues, failure=failure)
    if rescues == 1:
        return _end(run, Cause.LOST, attempt=run.attempt - 1, rescues=rescues, failure=failure, delay=0.0)
    return _end(run, Cause.LOST_AGAIN, attempt=run.attempt - 1, rescues=rescues, failure=failure, delay=RESCUE_WAIT)


def refusal(status: str, action: Cause) -> Conflict:
    """Why a person's action is not possible from ``status``: what it is, and what to do instead."""
    if status == Status.COMPLETED:
        hint = "it is completed for good; submit a new job with the same payload instead."
    elif status == Status.PROCESSING:
        hint = "it is running; wait until this run has ended."
    else:
        verb = {Cause.RETRIED: "retried", Cause.CANCELLED: "cancelled", Cause.DISCARDED: "discarded"}[action]
        hint = f"only these can be {verb}: {', '.join(s for s in sources(action) if s is not Status.PROCESSING)}."
    return Conflict(f"The job is {status}: {hint}", current_status=status)


def mermaid() -> str:
    """The table of moves as a Mermaid state diagram."""
    edges: dict[tuple[Status, Status], list[str]] = {}
    for before, moves in MOVES.items():
        for cause, after in moves.items():
            edges.setdefault((before, after), []).append(cause.value)
    lines = ["stateDiagram-v2", *(f"    [*] --> {status}" for status in (Status.PENDING, Status.SCHEDULED))]
    lines += [f"    {before} --> {after}: {', '.join(causes)}" for (before, after), causes in edges.items()]
    return "\n".join(lines)
