"""Who waits to hear of changes: streams of hints, and requests that wait for one job. One hub for each process.

Hints are coalesced, so a slow reader costs nothing and loses nothing: whoever hears one looks again. They go out in rounds,
at most one a second, and one after the other, so that a hundred tabs do not look again in the same moment. All streams and
waits end at the first signal, before the workers are drained: an open stream would hold the server for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from jobflow.errors import StoreUnavailable
from jobflow.lifecycle import Job
from jobflow.store import Store

EVERY = 1.0  # seconds from one round of hints to the next
BUSY = 0.7  # of that time at work: then jobs go first, and the next round comes after twice the time
STEP = 0.01  # seconds between two streams that are told in one round
STEPS = 50  # in a round; with more streams, several are told at once
LOOK = 2.0  # seconds between two looks at a job that is waited for: with Redis away nothing is heard of other processes


class Watch:
    """Somebody who waits for a job, or for hints."""

    __slots__ = ("_event", "changed")

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self._event = asyncio.Event()

    def tell(self, topics: Iterable[str]) -> None:
        self.changed.update(topics)
        self._event.set()

    async def wait(self, seconds: float) -> set[str]:
        """What has changed since the last call, or nothing after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
        changed, self.changed = self.changed, set()
        return changed


class Hub:
    """``store`` is asked what became of watched jobs when another process says that jobs have moved.

    ``hears()``: whether other processes can be heard at the moment.
    """

    def __init__(self, store: Store, hears: Callable[[], bool]) -> None:
        self.hears = hears
        self.closed = False
        self.round = 0  # of hints: what was read before it began may be out of date
        self._store = store
        self._streams: dict[Watch, None] = {}  # in the order they came, so that each is told at its place in a round
        self._jobs: dict[UUID, dict[Watch, None]] = {}
        self._changed: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._seen: dict[UUID, Any] = {}
        self._asking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._work = time.thread_time  # seconds of processor time of the loop

    # ---- what the engine says ---------------------------------------------------------------------------------------

    def told(self, topics: Iterable[str], own: bool) -> None:
        """Something changed, here (``own``) or in any process."""
        self._changed.update(topics)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())
        if not own and self._jobs and "jobs" in topics and self._asking is None:
            self._asking = asyncio.create_task(self._ask())

    async def _tell(self) -> None:
        """Rounds as long as something changes."""
        clock = asyncio.get_running_loop().time
        try:
            while self._changed and not self.closed:
                topics, self._changed = self._changed, set()
                self.round += 1
                began, worked, streams = clock(), self._work(), list(self._streams)
                at_once = -(-len(streams) // STEPS)
                for n, watch in enumerate(streams, 1):
                    watch.tell(topics)
                    if n % at_once == 0:
                        await self.pause(STEP)
                await self.pause(began + EVERY - clock())
                if self._work() - worked > BUSY * EVERY:
                    await self.pause(EVERY)
        finally:
            self._telling = None

    def moved(self, job_ids: Iterable[UUID]) -> None:
        if self._jobs:
            for job_id in job_ids:
                for watch in self._jobs.get(job_id, ()):
                    watch.tell(("job",))

    async def _ask(self) -> None:
        """One question for all watched jobs, however many wait."""
        try:
            with suppress(StoreUnavailable):
                for job_id, row in (await self._store.find_status(list(self._jobs))).items():
                    if self._seen.get(job_id) != row["updated_at"]:
                        self._seen[job_id] = row["updated_at"]
                        self.moved([job_id])
        finally:
            self._asking = None

    def close(self) -> None:
        """End all streams and waits now."""
        self.closed = True
        self._closing.set()
        for watch in [*self._streams, *(w for watches in self._jobs.values() for w in watches)]:
            watch.tell(("closed",))

    # ---- those who watch --------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, job_id: UUID | None = None) -> Iterator[Watch]:
        """A Watch for the block: of one job, or of all hints."""
        watch = Watch()
        group = self._streams if job_id is None else self._jobs.setdefault(job_id, {})
        group[watch] = None
        try:
            yield watch
        finally:
            group.pop(watch, None)
            if job_id is not None and not group:
                self._jobs.pop(job_id, None)
                self._seen.pop(job_id, None)

    async def pause(self, seconds: float) -> None:
        """Let so much time pass, or less when the hub closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def read(self, job_id: UUID) -> Job:
        return await self._store.get_job(job_id)

    async def changed(self, job_id: UUID, seconds: float, enough: Callable[[Job], bool]) -> Job:
        """The job once ``enough`` holds, or as it stands after ``seconds`` or at the end of the process.

        Raises what Store.get_job raises.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self.watching(job_id) as watch:
            while True:
                job = await self._store.get_job(job_id)
                left = deadline - asyncio.get_running_loop().time()
                if enough(job) or left <= 0 or self.closed:
                    return job
                await watch.wait(min(left, LOOK))
