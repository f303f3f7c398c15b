"""How every part of the engine is kept running: a part has one ``tick()``, which returns how long to wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

from jobflow.errors import Unavailable
from jobflow.events import Events, LoopFailed

BACKOFF_MAX = 2.0  # seconds between two tries while a server is away


class Wake:
    """Wakes one waiter for each ``set()``; one that nobody waits for is remembered."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def awaited(self) -> bool:
        """Whether ``set()`` would wake somebody."""
        return bool(self._waiters)

    def set(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._set = True

    async def wait(self, seconds: float) -> None:
        """Until somebody calls ``set()``, or for so long."""
        if self._set or seconds <= 0:
            self._set = False
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            waiter.cancel()
            with suppress(ValueError):  # nobody woke us: it must not be kept, loops wait for years
                self._waiters.remove(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Part(Protocol):
    """A part of the engine. ``wake``: set it to have it tick at once."""

    name: str
    wake: Wake

    async def tick(self) -> float:
        """One round. Returns the seconds to wait before the next; 0 when there is more to do at once."""
        ...


class Pulse:
    """When each loop should have ticked next: a loop that is long overdue hangs."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def beat(self, name: str, wait: float) -> None:
        self._due[name] = time.monotonic() + wait

    def forget(self, name: str) -> None:
        self._due.pop(name, None)

    def overdue(self) -> float:
        """Seconds by which the slowest loop is late."""
        return max((time.monotonic() - due for due in self._due.values()), default=0.0)


class Stop:
    """Tells loops to end after the round they are in."""

    def __init__(self) -> None:
        self.asked = False


async def run_forever(part: Part, stop: Stop, pulse: Pulse, events: Events) -> None:
    """Tick until told to stop. No error ends a loop: the web would go on answering while nothing runs."""
    failures = 0
    while not stop.asked:
        try:
            wait = await part.tick()
            failures = 0
        except Exception as error:
            failures += 1
            wait = min(0.1 * 2**failures, BACKOFF_MAX) * (0.5 + random.random())  # noqa: S311  (spreads the load)
            if not isinstance(error, Unavailable):
                events.emit(LoopFailed(part.name, error))
        pulse.beat(part.name, wait)
        if not stop.asked:
            await part.wake.wait(wait)
    pulse.forget(part.name)
