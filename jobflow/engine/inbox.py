"""Claimed runs that no worker has taken up yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from jobflow.engine.executor import Supervision

SLICE = 0.003  # seconds after which the loop turns to others, though runs are left


class Inbox:
    """Wakes one idle worker at a time; whoever takes a run while more are left wakes the next.

    So handlers that never wait run one after the other in one worker, without a change of tasks for each, and one that
    waits does not hold up the others.
    """

    def __init__(self) -> None:
        self._runs: deque[Supervision] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._until = 0.0  # end of the slice
        self._waking = self._renewing = self._closed = False

    def __len__(self) -> int:
        return len(self._runs)

    def put(self, supervision: Supervision) -> None:
        self._runs.append(supervision)
        if self._idle and not self._waking:
            self._until = time.monotonic() + SLICE
            self._wake()

    async def take(self) -> Supervision | None:
        """The next run; None once the inbox is closed and empty."""
        while True:
            if self._runs:
                if time.monotonic() < self._until:
                    break
                await self._yield()
            elif self._closed:
                return None
            else:
                await self._rest()
        supervision = self._runs.popleft()
        self._wake()
        return supervision

    def clear(self) -> list[Supervision]:
        """Take all of them out."""
        left = list(self._runs)
        self._runs.clear()
        return left

    def close(self) -> None:
        """Send the workers home, when nothing more will come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._idle and not self._waking and (self._runs or self._closed):
            self._waking = True
            self._idle.popleft().set_result(None)

    async def _rest(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._idle.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._idle.remove(turn)
            else:  # it was this one's turn: somebody else's, then
                self._waking = False
                self._wake()
            raise
        self._waking = False
        if self._closed:
            self._wake()

    async def _yield(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)
        await asyncio.sleep(0)

    def _renew(self) -> None:
        """Once in a round of the loop: what all workers together take of it is bounded."""
        self._renewing = False
        self._until = time.monotonic() + SLICE
