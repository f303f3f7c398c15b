"""One read for many open tabs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Shared:
    """Everybody gets an answer that was read after they asked; whoever asks while one is being read shares the next.

    So a hint that a hundred tabs follow at once costs two reads, and nobody sees what was true before the hint.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}

    async def __call__(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """``key``: what is read; the same key stands for the same ``read``."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._after(key, self._running.get(key), read))
            task.add_done_callback(_look_at)
        answer: T = await asyncio.shield(task)
        return answer

    async def _after(self, key: Hashable, running: asyncio.Task[Any] | None, read: Callable[[], Awaitable[T]]) -> T:
        if running is not None:
            await asyncio.wait([running])
        myself = self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            if self._running[key] is myself:
                del self._running[key]


def _look_at(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is nobody's business."""
    if not task.cancelled():
        task.exception()
