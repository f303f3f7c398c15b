"""An answer leaves as one piece, and nothing of it is lost when the connection is closed right after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from jobflow.protocol import Corked, Protocol

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Recorder(asyncio.Transport):
    """Says what reaches the connection, and when it is closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.seen: list[Any] = []

    def writelines(self, pieces: Any) -> None:
        self.seen.append(list(pieces))

    def close(self) -> None:
        self.seen.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.seen


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_what_is_written_in_one_turn_leaves_together_and_in_order(recorder: Recorder) -> None:
    corked = Corked(recorder)
    corked.write(b"head")
    corked.write(b"body")
    assert recorder.seen == []
    await asyncio.sleep(0)
    assert recorder.seen == [[b"head", b"body"]]
    await asyncio.sleep(0)
    corked.write(b"next")
    await asyncio.sleep(0)
    assert recorder.seen[1:] == [[b"next"]]


async def test_what_was_written_before_the_close_leaves_before_it_and_once(recorder: Recorder) -> None:
    corked = Corked(recorder)
    corked.write(b"all")
    corked.close()
    await asyncio.sleep(0)
    assert recorder.seen == [[b"all"], "closed"]


async def test_what_is_left_for_a_client_that_went_away_is_dropped(recorder: Recorder) -> None:
    corked = Corked(recorder)
    corked.write(b"late")
    recorder.close()
    await asyncio.sleep(0)
    assert recorder.seen == ["closed"]


async def test_all_else_is_asked_of_the_connection_itself(recorder: Recorder) -> None:
    corked = Corked(recorder)
    assert corked.get_extra_info("peername") == ("127.0.0.1", 1)
    assert not corked.is_closing()
    recorder.close()
    assert corked.is_closing()


async def test_a_real_answer_is_one_piece(recorder: Recorder) -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    config = uvicorn.Config(app, lifespan="off")
    config.load()
    protocol = Protocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(recorder)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while not recorder.seen:
        await asyncio.sleep(0)
    (pieces,) = recorder.seen
    assert b"".join(pieces).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"".join(pieces).endswith(b"\r\n\r\ndone")
    protocol.connection_lost(None)
