"""Adds the appended counter deltas up, once a second, so that no hot statement ever waits for a counter's row."""

from __future__ import annotations

from jobflow.engine.loop import Wake
from jobflow.store import Store

ROUND = 1.0  # seconds


class Folder:
    name = "folder"

    def __init__(self, *, store: Store) -> None:
        self.wake = Wake()
        self._store = store

    async def tick(self) -> float:
        await self._store.fold_counters()
        return ROUND
