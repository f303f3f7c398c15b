"""What a handler gets besides its payload (``Context``) and how it ends other than by a result."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

import msgspec

from jobflow.events import Events, HandlerLog
from jobflow.lifecycle import Run

FOREVER = 10 * 365 * 86_400  # seconds; no job waits longer

Enqueue = Callable[..., Awaitable[UUID]]  # (type, payload, **options)
Complete = Callable[[Any, Any, Any], Awaitable[None]]  # (supervision, session, result)


class Snooze(msgspec.Struct, frozen=True):
    """Returned by a handler: run again in ``seconds`` (0 to ten years), without using up an attempt.

    Raises ValueError when it is out of bounds.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not (isinstance(self.seconds, int | float) and math.isfinite(self.seconds) and 0 <= self.seconds <= FOREVER):
            raise ValueError(f"Snooze takes 0 to {FOREVER} seconds, not {self.seconds!r}")


class Cancel(msgspec.Struct, frozen=True):
    """Returned by a handler: this job is not wanted any more. ``reason`` is one sentence for people.

    Raises ValueError when it is not a text of 1 to 1,000 characters.
    """

    reason: str

    def __post_init__(self) -> None:
        if not (isinstance(self.reason, str) and 1 <= len(self.reason) <= 1_000):
            raise ValueError("Cancel takes a reason of 1 to 1,000 characters")


class Discard(Exception):
    """Raised by a handler: to the dead-letter queue at once, whatever attempts are left."""


class Log:
    """Writes lines that carry the job's id, type, queue and attempt. Safe to use from a thread handler."""

    __slots__ = ("_events", "_run")

    def __init__(self, run: Run, events: Events) -> None:
        self._run = run
        self._events = events

    def debug(self, message: str, /, **fields: object) -> None:
        self._events.emit(HandlerLog(self._run, "debug", message, fields))

    def info(self, message: str, /, **fields: object) -> None:
        self._events.emit(HandlerLog(self._run, "info", message, fields))

    def warning(self, message: str, /, **fields: object) -> None:
        self._events.emit(HandlerLog(self._run, "warning", message, fields))

    def error(self, message: str, /, **fields: object) -> None:
        self._events.emit(HandlerLog(self._run, "error", message, fields))


class Supervised(Protocol):
    """What a Context shares with those who watch its run."""

    noticed: bool  # whether the handler knows that it was told to stop

    @property
    def cause(self) -> str | None:
        """Why it was told to stop, or None."""


class Context:
    """What a handler may know and do besides its payload. One per run.

    state: what the ``@lifespan`` function yielded; None without one.
    """

    __slots__ = ("_complete", "_enqueue", "_events", "_run", "_supervision", "state")

    def __init__(
        self, run: Run, *, state: Any, events: Events, supervision: Supervised, enqueue: Enqueue, complete: Complete
    ) -> None:
        self._run = run
        self._events = events
        self._supervision = supervision
        self._enqueue = enqueue
        self._complete = complete
        self.state = state

    @property
    def job_id(self) -> UUID:
        """The same in every attempt, so it serves as an idempotency key towards others."""
        return self._run.id

    @property
    def type(self) -> str:
        return self._run.type

    @property
    def queue(self) -> str:
        return self._run.queue

    @property
    def attempt(self) -> int:
        """This one: 1 on the first run."""
        return self._run.attempt

    @property
    def max_attempts(self) -> int:
        return self._run.max_attempts

    @property
    def log(self) -> Log:
        return Log(self._run, self._events)

    @property
    def cancelled(self) -> bool:
        """True once this run was told to stop: out of time, cancelled, draining or lost. A thread should ask often."""
        if self._supervision.cause is None:
            return False
        self._supervision.noticed = True
        return True

    async def enqueue(self, type: str, payload: Any = None, **options: Any) -> UUID:
        """Submit another job, committed when this returns; ``options`` are the members of ``POST /jobs``.

        Raises Invalid (it does not fit its type), StoreUnavailable. Only for ``async`` handlers.
        """
        return await self._enqueue(type, {} if payload is None else payload, **options)

    async def complete_in(self, session: Any, result: Any = None) -> None:
        """Write this job's completion in the handler's own transaction, so that both are committed or neither is.

        session: a SQLAlchemy AsyncSession or AsyncConnection to Jobflow's database, which the handler then commits. If it
        does not, the attempt has failed (``NotCommitted``). ``result`` takes the place of what the handler returns.
        Raises RunLost: the run was given up, roll back; ValueError or TypeError: the result is no JSON. Only for ``async``
        handlers. After River's JobCompleteTx.
        """
        await self._complete(self._supervision, session, result)
