"""What can happen, said once: logs, metrics and (later) traces listen; nothing else logs or counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec

from jobflow.lifecycle import Change, Run


class Event(msgspec.Struct, frozen=True):
    pass


class JobsEnqueued(Event, frozen=True):
    """Committed, all of one request."""

    ids: Sequence[UUID]
    types: Sequence[str]
    queues: Sequence[str]


CANCEL_REQUESTED = "cancel_requested"  # the action of a JobMoved that moves nothing: its run was asked to stop


class JobMoved(Event, frozen=True):
    """A person's or a rule's move, outside of a run."""

    id: UUID
    action: str
    before: str
    after: str


class RunStarted(Event, frozen=True):
    """Its claim was answered; a worker takes it up at once."""

    run: Run


class RunEnded(Event, frozen=True):
    change: Change
    seconds: float
    status: str  # as written: a cancel request may have turned a retry into cancelled


class RunRefused(Event, frozen=True):
    """The lease was lost before this ending could be written: the job is somebody else's now."""

    change: Change


class RunsRescued(Event, frozen=True):
    worker: UUID
    count: int


class WorkerMarkedLost(Event, frozen=True):
    worker: UUID


class LeaseLost(Event, frozen=True):
    """This process was marked lost and goes on under a new identity."""

    worker: UUID
    successor: UUID


class ClaimsAdopted(Event, frozen=True):
    """Claims whose answer was lost, found by the audit and handed back."""

    count: int


class ClaimsForgotten(Event, frozen=True):
    """Runs whose claim Postgres does not know (any more): cancelled, results dropped."""

    count: int


class ServerAway(Event, frozen=True):
    """Postgres or Redis does not answer."""

    server: str
    error: str


class ServerBack(Event, frozen=True):
    server: str
    seconds: float  # how long it was away


class LoopFailed(Event, frozen=True):
    loop: str
    error: BaseException


class LoopBlocked(Event, frozen=True):
    """The event loop did not move: ``stack`` is where it stands, ``run`` whose handler holds it, if one does."""

    seconds: float
    stack: str
    run: Run | None = None


class RunStuck(Event, frozen=True):
    """A handler ignored its cancellation; its slot is written off."""

    run: Run


class ProcessStarted(Event, frozen=True):
    worker: UUID
    concurrency: int
    types: Sequence[str]


class ProcessDraining(Event, frozen=True):
    running: int


class ProcessStopped(Event, frozen=True):
    released: int
    seconds: float


class PartitionDropped(Event, frozen=True):
    table: str


class TransactionHeld(Event, frozen=True):
    """Somebody's transaction stays open: nothing that dies meanwhile can be swept away, and the tables grow."""

    pid: int
    name: str  # as its program calls itself
    seconds: float


class Warned(Event, frozen=True):
    """Something an operator should know and mend."""

    message: str


class RequestFailed(Event, frozen=True):
    """A request raised what nobody expected: a bug of ours."""

    method: str
    path: str
    request_id: str
    error: BaseException


class HandlerLog(Event, frozen=True):
    """A line that a handler wrote by ``ctx.log``."""

    run: Run
    level: str
    message: str
    fields: dict[str, object]


Listener = Callable[[Sequence[Event]], None]


class Events:
    """Hands events to every listener, in the caller's thread and at once: listeners must be quick."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def emit(self, *events: Event) -> None:
        """events: at least one, all of one kind. They happened together, as the endings of a batch do, so that listeners
        need not ask of each what it is.
        """
        for listener in self._listeners:
            listener(events)
