"""Looks at everything that runs, twenty times a second: deadlines, handlers that do not end, and whether the loop is late."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobflow.engine.completer import Ending, Endings
from jobflow.engine.executor import Supervision
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.events import Events, RunStuck
from jobflow.lifecycle import Failure, fail

ROUND = 0.05  # seconds: how exactly timeouts are kept
STUCK = 10.0  # seconds that a handler may take to end after it was stopped


class Watchdog:
    """``lag(seconds)`` is told how late each round was. ``outage``: seconds that runs go on while Postgres is away.
    ``hopeless()``: no slot is left."""

    name = "watchdog"

    def __init__(
        self,
        *,
        slots: Slots,
        endings: Endings,
        lease: Lease,
        events: Events,
        outage: float,
        lag: Callable[[float], None],
        hopeless: Callable[[], None],
    ) -> None:
        self.wake = Wake()
        self._slots, self._endings, self._lease, self._events = slots, endings, lease, events
        self._outage, self._lag, self._hopeless = outage, lag, hopeless
        self._expected = time.monotonic()

    async def tick(self) -> float:
        now = time.monotonic()
        self._lag(max(now - self._expected, 0.0))
        self._expected = now + ROUND
        self._lease.moved = boottime()
        outage = self._lease.silence() > self._lease.seconds + self._outage
        for supervision in list(self._slots.runs.values()):
            if supervision.ended:
                continue
            if supervision.cause is None:
                if now > supervision.deadline:
                    supervision.stop("timeout")
                elif outage:
                    supervision.stop("lost")
            elif now > supervision.stopped + STUCK and not supervision.abandoned:
                self._abandon(supervision)
        return ROUND

    def _abandon(self, supervision: Supervision) -> None:
        """The handler ignores that it was stopped. Its job goes on without it; its slot is gone until it ends."""
        supervision.abandoned = supervision.ended = True
        self._slots.write_off(supervision)
        self._events.emit(RunStuck(supervision.run))
        if len(self._slots.stuck) == self._slots.total:
            self._hopeless()
        failure = Failure(
            "Stuck", f"The handler did not end within {STUCK:g} s after it was stopped ({supervision.cause})."
        )
        self._endings.put(Ending(fail(supervision.run, failure, 60.0), time.monotonic() - supervision.began))
