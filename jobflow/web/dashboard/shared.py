"""One read for many open tabs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

KEEP = 1.0  # seconds that an answer counts at most, for what no hint tells: ages, and changes while Redis is away


class Shared:
    """Everybody gets an answer that was read after the last hints: whoever follows one sees what it was about.

    So a hint that a hundred tabs follow costs one read, and a busy instance one a second. One read of a kind at a time.
    """

    def __init__(self, hints: Callable[[], int]) -> None:
        """``hints()``: the number of the last round of hints."""
        self._hints = hints
        self._reads: dict[Hashable, _Read] = {}

    async def __call__(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """``key``: what is read; the same key stands for the same ``read``."""
        found = self._reads.get(key)
        if found is None or found.after not in (None, self._hints()):
            before = None if found is None else found.task
            found = self._reads[key] = _Read()
            found.task = asyncio.create_task(self._run(key, found, before, read))
            found.task.add_done_callback(_look_at)
        answer: T = await asyncio.shield(found.task)
        return answer

    def forget(self) -> None:
        """Something was just done here, and must be seen at once by who did it."""
        self._reads.clear()

    async def _run(
        self, key: Hashable, myself: _Read, before: asyncio.Task[Any] | None, read: Callable[[], Awaitable[T]]
    ) -> T:
        if before is not None:
            await asyncio.wait([before])
        myself.after = self._hints()
        try:
            answer = await read()
        except BaseException:
            self._drop(key, myself)
            raise
        asyncio.get_running_loop().call_later(KEEP, self._drop, key, myself)
        return answer

    def _drop(self, key: Hashable, read: _Read) -> None:
        if self._reads.get(key) is read:
            del self._reads[key]


class _Read:
    """``after``: the round of hints it was begun after; None until then, so that whoever asks may still share it."""

    __slots__ = ("after", "task")
    task: asyncio.Task[Any]

    def __init__(self) -> None:
        self.after: int | None = None


def _look_at(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is nobody's business."""
    if not task.cancelled():
        task.exception()
