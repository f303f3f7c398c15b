"""Makes committed jobs known to Redis, in batches, outside of anybody's request. What fails here the sweep finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from jobflow import failpoints
from jobflow.broker import Broker, Entry
from jobflow.errors import BrokerUnavailable

CHUNK = 1_000  # ids for each script call, which holds Redis for about 2 ms

Heard = Callable[[str, list[int]], None]
Offer = Callable[[str, list[Entry]], bool]


class Pusher:
    """``heard(queue, cold)`` is told of every push: workers wake up, and cold lanes are filled. ``told(moment)`` hears what
    Postgres' clock has shown. ``offer(queue, entries)`` may take new jobs instead: then nothing is pushed."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: dict[str, list[Entry]] = {}
        self._task: asyncio.Task[None] | None = None
        self.heard: Heard = lambda queue, cold: None
        self.told: Callable[[datetime], None] = lambda moment: None
        self.offer: Offer = lambda queue, entries: False

    def push(self, queue: str, entries: list[Entry], committed: datetime | None = None) -> None:
        """Only after the commit: a lane must never know more than Postgres. ``committed``: when new jobs were written, by
        its clock."""
        if committed is not None:
            self.told(committed)
            if self.offer(queue, entries):
                return
        self._waiting.setdefault(queue, []).extend(entries)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="pusher")

    async def _run(self) -> None:
        try:
            while self._waiting:
                queue, entries = self._waiting.popitem()
                for start in range(0, len(entries), CHUNK):
                    await failpoints.reach("push.taken")
                    try:
                        pushed = await self._broker.push(queue, entries[start : start + CHUNK])
                        cold = pushed.cold
                    except BrokerUnavailable:
                        cold = []
                    await failpoints.reach("push.pushed")
                    self.heard(queue, cold)
        finally:
            self._task = None

    async def flush(self) -> None:
        """Wait until everything handed over so far was pushed, or given up."""
        while self._task is not None:
            await asyncio.wait({self._task})
