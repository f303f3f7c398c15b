"""Server-sent events and answers that wait, over HTTP. Streams are read raw: the test client gathers whole answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar import Litestar

from tests.support.waiting import final


class Reader:
    """One open stream: ``events`` are (name, data) as they come."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.leave = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif message.get("body"):
            self.chunks.put_nowait(message["body"])
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended.set()

    async def receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def event(self, name: str, seconds: float = 10.0) -> str:
        """The data of the next event of this name."""
        async with asyncio.timeout(seconds):
            while True:
                for block in (await self.chunks.get()).decode().split("\n\n"):
                    lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
                    if lines.get("event") == name:
                        return lines["data"]


@asynccontextmanager
async def reading(app: Litestar, path: str) -> AsyncIterator[Reader]:
    reader = Reader()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"localhost"), (b"accept", b"text/event-stream")], "server": ("localhost", 80), "state": {},
    }  # fmt: skip
    task = asyncio.create_task(app(scope, reader.receive, reader.send))  # type: ignore[arg-type]
    try:
        yield reader
    finally:
        reader.leave.set()
        async with asyncio.timeout(5):
            await task


async def submit(http: httpx.AsyncClient, type: str, **members: Any) -> str:
    return str((await http.post("/jobs", json={"type": type, **members})).json()["id"])


async def test_the_feed_hints_at_what_changed(app: Litestar, http: httpx.AsyncClient) -> None:
    async with reading(app, "/events") as reader:
        assert await reader.chunks.get() == b"retry: 2000\n\n"
        assert (reader.status, reader.headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
        await submit(http, "noop")
        assert (await reader.event("jobs")).isdigit()  # how soon: tests/web/test_hub.py, tests/browser/test_live.py


async def test_a_burst_is_one_hint_in_a_second(app: Litestar, http: httpx.AsyncClient) -> None:
    async with reading(app, "/events") as reader:
        began, submitted = time.monotonic(), 0
        while time.monotonic() - began < 2 or submitted < 20:
            await submit(http, "noop")
            submitted += 1
        await reader.event("jobs")
        hints = 1
        while not reader.chunks.empty():
            hints += (await reader.chunks.get()).count(b"event: jobs")
        assert hints <= time.monotonic() - began + 2  # the engine tells four times a second


async def test_one_job_is_followed_to_its_end(app: Litestar, http: httpx.AsyncClient) -> None:
    job_id = await submit(http, "sleep", payload={"seconds": 60})
    async with reading(app, f"/jobs/{job_id}/events") as reader:

        async def status() -> str:
            return str(json.loads(await reader.event("status"))["status"])

        while await status() != "processing":
            pass
        await http.post(f"/jobs/{job_id}/cancel")
        while (last := await status()) == "processing":  # once more, since it was asked to stop
            pass
        assert last == "cancelled"
        await reader.event("end")
        async with asyncio.timeout(5):
            await reader.ended.wait()


async def test_the_stream_of_no_job_is_404(http: httpx.AsyncClient) -> None:
    answer = await http.get("/jobs/0190b5d2-7c1e-4d3a-9f00-2b6c1d4e5f60/events")
    assert answer.status_code == 404


async def test_streams_end_when_the_process_drains(app: Litestar) -> None:
    async with reading(app, "/events") as reader:
        await reader.chunks.get()
        app.state.hub.close()
        async with asyncio.timeout(10):  # sooner than the next heartbeat
            await reader.ended.wait()


async def test_a_reader_that_goes_away_is_forgotten(app: Litestar) -> None:
    async with reading(app, "/events") as reader:
        await reader.chunks.get()
        assert len(app.state.hub._streams) == 1
    assert len(app.state.hub._streams) == 0


async def test_prefer_wait_holds_the_answer_until_the_end(http: httpx.AsyncClient) -> None:
    answer = await http.post("/jobs", json={"type": "sum", "payload": {"a": 1}}, headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.json()["status"], answer.json()["result"]) == (201, "completed", 1)
    assert answer.headers["preference-applied"] == "wait=10"


async def test_prefer_wait_gives_up_in_time(http: httpx.AsyncClient) -> None:
    answer = await http.post("/jobs", json={"type": "noop", "delay": 60}, headers={"Prefer": "respond-async, wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (201, "scheduled")


@pytest.mark.parametrize("prefer", ["wait=x", "waiting=3", "", "wait=0"])
async def test_other_preferences_are_ignored(http: httpx.AsyncClient, prefer: str) -> None:
    answer = await http.post("/jobs", json={"type": "noop"}, headers={"Prefer": prefer})
    assert (answer.status_code, "preference-applied" in answer.headers) == (201, False)


async def test_a_long_poll_answers_on_a_change(http: httpx.AsyncClient) -> None:
    job_id = await submit(http, "noop", delay=60)
    waiting = asyncio.create_task(http.get(f"/jobs/{job_id}?wait=20"))
    await asyncio.sleep(0.1)
    await http.post(f"/jobs/{job_id}/cancel")
    async with asyncio.timeout(15):
        assert (await waiting).json()["status"] == "cancelled"


async def test_a_long_poll_with_an_old_etag_answers_at_once(http: httpx.AsyncClient) -> None:
    job_id = await submit(http, "noop", delay=60)
    etag = (await http.get(f"/jobs/{job_id}")).headers["etag"]
    await http.post(f"/jobs/{job_id}/retry")
    await final(http, job_id)
    async with asyncio.timeout(15):
        answer = await http.get(f"/jobs/{job_id}?wait=20", headers={"If-None-Match": etag})
    assert answer.status_code == 200


async def test_a_long_poll_without_a_change_is_304_at_its_end(http: httpx.AsyncClient) -> None:
    job_id = await submit(http, "noop", delay=60)
    etag = (await http.get(f"/jobs/{job_id}")).headers["etag"]
    answer = await http.get(f"/jobs/{job_id}?wait=1", headers={"If-None-Match": etag})
    assert answer.status_code == 304


@pytest.mark.parametrize("wait", ["-1", "31", "x", ""])
async def test_a_wait_that_does_not_fit_is_422(http: httpx.AsyncClient, wait: str) -> None:
    job_id = await submit(http, "noop")
    assert (await http.get(f"/jobs/{job_id}?wait={wait}")).status_code == 422
