"""Who waits to hear of changes: streams of hints, and requests that wait for one job. One hub for each process.

Hints are coalesced, so a slow reader costs nothing and loses nothing: whoever hears one looks again. All streams and waits
end at the first signal, before the workers are drained: an open stream would hold the server for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from jobflow.errors import StoreUnavailable
from jobflow.lifecycle import Job
from jobflow.store import Store

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
        self._store = store
        self._streams: set[Watch] = set()
        self._jobs: dict[UUID, set[Watch]] = {}
        self._seen: dict[UUID, Any] = {}
        self._asking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    # ---- what the engine says ---------------------------------------------------------------------------------------

    def told(self, topics: Iterable[str], own: bool) -> None:
        """Something changed, here (``own``) or in any process."""
        for watch in self._streams:
            watch.tell(topics)
        if not own and self._jobs and "jobs" in topics and self._asking is None:
            self._asking = asyncio.create_task(self._ask())

    def moved(self, job_id: UUID) -> None:
        for watch in self._jobs.get(job_id, ()):
            watch.tell(("job",))

    async def _ask(self) -> None:
        """One question for all watched jobs, however many wait."""
        try:
            with suppress(StoreUnavailable):
                for job_id, row in (await self._store.find_status(list(self._jobs))).items():
                    if self._seen.get(job_id) != row["updated_at"]:
                        self._seen[job_id] = row["updated_at"]
                        self.moved(job_id)
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
        group = self._streams if job_id is None else self._jobs.setdefault(job_id, set())
        group.add(watch)
        try:
            yield watch
        finally:
            group.discard(watch)
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
