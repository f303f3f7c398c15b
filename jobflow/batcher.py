"""Natural batching: while one batch is on its way, the next collects. No timers: alone, an item goes at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Batcher(Generic[Item, Outcome]):
    """``flush`` gets up to ``limit`` items and returns an outcome for each, an exception being one too."""

    def __init__(self, flush: Callable[[list[Item]], Awaitable[Sequence[Outcome | Exception]]], limit: int) -> None:
        self._flush, self._limit = flush, limit
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Outcome:
        """Join the next batch. Raises what became of this item, or what ``flush`` raised."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="batcher")
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limit))]
                settled: list[tuple[tuple[Item, asyncio.Future[Outcome]], Outcome | Exception]]
                try:
                    # Too few or too many outcomes are a bug of flush; nobody may wait for ever for it.
                    settled = list(zip(batch, await self._flush([item for item, _ in batch]), strict=True))
                except Exception as error:
                    settled = [(entry, error) for entry in batch]
                for (_, future), outcome in settled:
                    if future.done():
                        continue  # its caller went away
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
        finally:
            self._task = None
