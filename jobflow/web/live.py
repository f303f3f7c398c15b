"""What happens now: streams of hints, streams of one job, and answers that wait for it.

One hub for each process. Hints are coalesced, so a slow reader costs nothing and loses nothing: whoever hears one looks
again. All streams and waits end at the first signal, before the workers are drained: an open stream would hold the server
for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from litestar.types import Receive, Scope, Send

from jobflow.errors import JobflowError, StoreUnavailable
from jobflow.lifecycle import Job
from jobflow.store import Store

EVERY = 1.0  # seconds between two hints on one topic in one stream
HEARTBEAT = 15.0  # seconds
RETRY = b"retry: 2000\n\n"
STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


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
    """``store`` is asked what became of watched jobs when another process says that jobs have moved."""

    def __init__(self, store: Store) -> None:
        self.closed = False
        self._store = store
        self._streams: set[Watch] = set()
        self._jobs: dict[UUID, set[Watch]] = {}
        self._seen: dict[UUID, Any] = {}
        self._asking: asyncio.Task[None] | None = None

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
        for watch in [*self._streams, *(w for watches in self._jobs.values() for w in watches)]:
            watch.tell(("closed",))

    # ---- those who watch --------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, job_id: UUID | None = None) -> Any:
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
                # With Redis away another process's moves are not heard of: look now and then.
                await watch.wait(min(left, 2.0))


async def hints(hub: Hub) -> AsyncIterator[bytes]:
    """The live feed: ``event: jobs | queues | workers`` with a number that rises, at most one of each in a second."""
    number = 0
    with hub.watching() as watch:
        yield RETRY
        while not hub.closed:
            topics = await watch.wait(HEARTBEAT)
            if hub.closed:
                break
            number += 1
            yield (
                b"".join(b"event: %b\nid: %d\ndata: %d\n\n" % (t.encode(), number, number) for t in sorted(topics))
                or b": heartbeat\n\n"
            )
            if topics:
                await asyncio.sleep(0 if hub.closed else EVERY)


class EventStream:
    """A response that streams until its source ends, the reader goes away or the hub closes; an ASGI application."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        writer = asyncio.ensure_future(self._write(send))
        reader = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        with suppress(JobflowError):
            async for chunk in self._source:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
