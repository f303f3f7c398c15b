"""Keeps the days' partitions ahead, drops old ones, deletes what has outlived its retention, and tells who is in its way."""

from __future__ import annotations

import time

import asyncpg

from jobflow.engine.loop import Wake
from jobflow.events import Events, PartitionDropped, TransactionHeld
from jobflow.lifecycle import Status
from jobflow.store import Store

DAY = 86_400
AHEAD = 3  # days
ROUND = 60.0  # seconds
ROWS = 1_000  # deleted for each statement
HELD = 60.0  # seconds that a transaction may be open before somebody should know


class Pruner:
    """``retention``: seconds for each final status; 0 keeps for ever."""

    name = "pruner"

    def __init__(self, *, store: Store, retention: dict[Status, float], events: Events) -> None:
        self.wake = Wake()
        self.held: TransactionHeld | None = None
        self._store, self._retention, self._events = store, retention, events

    async def tick(self) -> float:
        await self._look()
        today = int(time.time()) // DAY
        days = await self._store.list_days()
        await self.prepare(days, today)
        if keep := self._retention[Status.COMPLETED]:
            for day in days:
                if (day + 1) * DAY < time.time() - keep:
                    await self._drop(day, keep)
            while await self._store.prune_stragglers(keep, ROWS) == ROWS:
                pass
        for status in (Status.CANCELLED, Status.DEAD_LETTER):
            if keep := self._retention[status]:
                while await self._store.prune_jobs(status.value, keep, ROWS) == ROWS:
                    pass
        await self._store.prune_small(ROWS * 10)
        return ROUND

    async def _look(self) -> None:
        oldest = await self._store.oldest_transaction(HELD)
        self.held = TransactionHeld(**oldest) if oldest else None
        if self.held:
            self._events.emit(self.held)

    async def prepare(self, days: list[int] | None = None, today: int | None = None) -> None:
        """Make sure that today and the days ahead have their partitions; a missing one is slow, never an error."""
        days = await self._store.list_days() if days is None else days
        today = int(time.time()) // DAY if today is None else today
        for day in range(today, today + AHEAD + 1):
            if day not in days:
                try:
                    await self._store.create_day(day)
                except asyncpg.DuplicateTableError:
                    continue  # another process was quicker
                except asyncpg.LockNotAvailableError:
                    return  # busy: the rows go to the default partition until the next round

    async def _drop(self, day: int, keep: float) -> None:
        try:
            await self._store.drop_day(day, keep)
        except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError):
            return  # in use: next round; or dropped by another process
        self._events.emit(PartitionDropped(f"jobs_done_{day}"))
