"""What happens now, as server-sent events (HTML Living Standard, 9.2): the feed of hints, and one job until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from jobflow.errors import JobflowError
from jobflow.lifecycle import FINAL, Job
from jobflow.web.call import Call
from jobflow.web.hub import LOOK, Hub
from jobflow.web.jobs import read_id
from jobflow.web.openapi import Operation
from jobflow.web.query import no_query

HEARTBEAT = 15.0  # seconds
RETRY = b"retry: 2000\n\n"
HEARTBEAT_LINE = b": still here\n\n"
STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def hints(hub: Hub) -> AsyncIterator[bytes]:
    """``event: jobs | queues | workers`` with a number that rises, at most one of each in a second."""
    number = 0
    with hub.watching() as watch:
        yield RETRY
        while not hub.closed:
            topics = await watch.wait(HEARTBEAT)
            if hub.closed:
                return
            number += 1
            yield b"".join(_event(topic, b"%d" % number, number) for topic in sorted(topics)) or HEARTBEAT_LINE


async def moves(hub: Hub, job: Job) -> AsyncIterator[bytes]:
    """``event: status`` with the job whenever it has changed, ``event: end`` after its final state."""
    number, seen = 0, b""
    with hub.watching(job.id) as watch:
        yield RETRY
        while not hub.closed:
            job = await hub.read(job.id)
            body = msgspec.json.encode(job)
            if body != seen:
                number, seen = number + 1, body
                yield _event("status", body, number)
            if job.status in FINAL:
                yield _event("end", b"{}", number + 1)
                return
            if not await watch.wait(HEARTBEAT if hub.hears() else LOOK):
                yield HEARTBEAT_LINE


def _event(name: str, data: bytes, number: int) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), number, data)


class EventStream:
    """A response that streams until its source ends, the reader goes away or the hub closes; an ASGI application."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(STREAM)})
        writer = asyncio.ensure_future(self._write(send))
        reader = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        with suppress(JobflowError):  # the reader comes back, and is told then
            async for chunk in self._source:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@get(
    "/events",
    doc=Operation(
        "events",
        "The live feed: hints of what changed, as server-sent events.",
        {200: "text/event-stream"},
        errors=(422,),
    ),
)
async def events(request: Call) -> ASGIApp:
    """Ends when this process drains; readers reconnect after 2 s."""
    no_query(request)
    return EventStream(hints(request.parts.hub))


@get(
    "/jobs/{job_id:str}/events",
    doc=Operation(
        "jobEvents",
        "One job as server-sent events until it ends.",
        {200: "text/event-stream"},
        errors=(404, 410, 422, 503),
    ),
)
async def job_events(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """``status`` events carry the job; ``end`` follows its final state."""
    no_query(request)
    job = await request.parts.store.get_job(read_id(job_id))
    return EventStream(moves(request.parts.hub, job))


ROUTES = [events, job_events]
