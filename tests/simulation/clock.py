"""An event loop whose time is virtual and whose processes take their steps in an order drawn from a seed.

Every thread of every simulated process is a ``Lane``: its callbacks keep their order, as asyncio promises; which lane
moves next is drawn. A lane can stand still (SIGSTOP) or vanish (SIGKILL) between any two steps.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from random import Random
from typing import Any


class Lane:
    """One thread: its callbacks in order. ``main``: where ``call_soon_threadsafe`` brings what is said from here."""

    __slots__ = ("context", "dead", "handles", "main", "name", "paused")

    def __init__(self, name: str, main: Lane | None = None) -> None:
        self.name, self.main = name, main or self
        self.handles: deque[asyncio.Handle] = deque()
        self.paused = self.dead = False
        self.context = Context()
        self.context.run(LANE.set, self)


LANE: ContextVar[Lane] = ContextVar("LANE")


class VirtualLoop(asyncio.BaseEventLoop):
    """``run(steps)`` takes so many steps, a step being one callback of one lane. Equal seeds take equal steps."""

    TICK = 0.00002  # seconds that a step takes, on average

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.now = 1_000.0
        self.steps = 0
        self.world = Lane("world")
        self._random = random
        self._busy: list[Lane] = []
        self._until = 0
        self.set_exception_handler(lambda loop, context: None)  # a killed process leaves tasks behind

    def time(self) -> float:
        return self.now

    def run(self, steps: int) -> None:
        self._until = self.steps + steps
        self.run_forever()

    def spawn(self, lane: Lane, work: Any) -> asyncio.Task[Any]:
        return self.create_task(work, context=lane.context.copy())

    def outside(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        """Have the world do something later, whatever becomes of who asks for it."""
        self.call_later(seconds, callback, *args, context=self.world.context)

    def pause(self, lane: Lane) -> None:
        lane.paused = True

    def resume(self, lane: Lane) -> None:
        lane.paused = False
        if lane.handles and not lane.dead and lane not in self._busy:
            self._busy.append(lane)

    def kill(self, lane: Lane) -> None:
        """Its callbacks are kept, only because Python would tidy up what is dropped."""
        lane.dead = True

    # ---- what BaseEventLoop leaves to its heirs -----------------------------------------------------------------------

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        return self._call_soon(callback, args, LANE.get().main.context)

    def _append(self, handle: asyncio.Handle) -> None:
        lane = handle._context.get(LANE, self.world)
        if not lane.handles and not lane.paused and not lane.dead:
            self._busy.append(lane)
        lane.handles.append(handle)

    def _run_once(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0]._when <= self.now or scheduled[0]._cancelled):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._append(timer)
        if not self._busy and not scheduled:
            self._stopping = True  # everybody is dead
            return
        if not self._busy:
            self.now = max(self.now, scheduled[0]._when)
            return
        place = int(self._random.random() * len(self._busy))
        lane = self._busy[place]
        stopped = lane.paused or lane.dead
        if lane.handles and not stopped:
            handle = lane.handles.popleft()
            if not handle._cancelled:
                handle._run()
                self.steps += 1
                self.now += self.TICK
        if not lane.handles or stopped:
            self._busy[place] = self._busy[-1]
            self._busy.pop()
        if self.steps >= self._until:
            self._stopping = True
