"""Says what has changed, at most four times a second, to whoever watches in any process. Hints carry no state: who hears one
looks again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from jobflow.broker import Broker
from jobflow.engine.health import Health
from jobflow.engine.loop import Wake
from jobflow.errors import BrokerUnavailable
from jobflow.events import (
    CANCEL_REQUESTED,
    Event,
    Events,
    JobMoved,
    JobsEnqueued,
    LeaseLost,
    ProcessDraining,
    ProcessStarted,
    ProcessStopped,
    RunEnded,
    RunsRescued,
    RunStarted,
    ServerAway,
    ServerBack,
    WorkerMarkedLost,
)

ROUND = 0.25  # seconds
JOBS, QUEUES, WORKERS = "jobs", "queues", "workers"
STOP = "stop"  # between processes only: some run was asked to stop, so ask Postgres whether it is one of yours

# What each event may have changed.
TOPICS: dict[type[Event], tuple[str, ...]] = {
    JobsEnqueued: (JOBS, QUEUES),
    RunStarted: (JOBS, QUEUES),
    RunEnded: (JOBS, QUEUES),
    JobMoved: (JOBS, QUEUES),
    RunsRescued: (JOBS, QUEUES),
    WorkerMarkedLost: (WORKERS,),
    LeaseLost: (WORKERS,),
    ProcessStarted: (WORKERS,),
    ProcessDraining: (WORKERS,),
    ProcessStopped: (WORKERS,),
    ServerAway: (WORKERS,),
    ServerBack: (WORKERS,),
}

Told = Callable[[Iterable[str], bool], None]  # topics, whether they come from this process


class Hints:
    """Listens to this process's events; ``told(topics, own)`` hears of this process's changes and of the others'.

    ``moved(job_ids)`` is told at once of jobs that this process moved, for those who wait for one. ``stop()`` is called
    when a run that may be ours was asked to stop, by anybody.
    """

    name = "hints"

    def __init__(self, *, broker: Broker, health: Health, events: Events) -> None:
        self.wake = Wake()
        self.told: Told = lambda topics, own: None
        self.moved: Callable[[Iterable[UUID]], None] = lambda job_ids: None
        self.stop: Callable[[], None] = lambda: None
        self._broker, self._health = broker, health
        self._me = secrets.token_hex(4)
        self._changed: set[str] = set()
        events.subscribe(self._note)

    def _note(self, events: Sequence[Event]) -> None:
        kind: Any = type(events[0])  # by the exact type: quicker than isinstance, which metaclasses slow down
        if kind not in TOPICS:
            return
        self._changed.update(TOPICS[kind])
        if kind is RunEnded:
            self.moved([event.change.run.id for event in events])  # type: ignore[attr-defined]
        elif kind is RunStarted:
            self.moved([event.run.id for event in events])  # type: ignore[attr-defined]
        elif kind is JobMoved:
            self.moved([event.id for event in events])  # type: ignore[attr-defined]
            if any(event.action == CANCEL_REQUESTED for event in events):  # type: ignore[attr-defined]
                self._changed.add(STOP)
                self.stop()

    async def tick(self) -> float:
        if self._changed:
            topics, self._changed = sorted(self._changed), set()
            self._tell(topics, own=True)
            if self._health.broker_up:  # the others poll while Redis is away
                try:
                    await self._broker.hint([self._me, *topics])
                except BrokerUnavailable as error:
                    self._health.broker_failed(error)
        return ROUND

    def hear(self, text: str) -> None:
        """Another process said this; what this one said itself is not news."""
        sender, *topics = text.split()
        if sender != self._me:
            if STOP in topics:
                self.stop()
            self._tell(topics, own=False)

    def _tell(self, topics: Iterable[str], *, own: bool) -> None:
        self.told([topic for topic in topics if topic != STOP], own)

    def resume(self) -> None:
        """Hearing again: whatever was said meanwhile may have been about anything."""
        self.told((JOBS, QUEUES, WORKERS), False)
