"""How bodies must come."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable

import pytest

from jobflow.web import body, bulk
from tests.web.stubs import Stage

PATHS = ["/jobs", "/jobs/bulk", "/dlq/retry", "/jobs/0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60/retry"]
JSON = {"content-type": "application/json"}


async def pieces(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=latin-1",
        "json",
        "application/jsonx",
        "",
    ],
)
async def test_only_json_is_taken(path: str, content_type: str) -> None:
    answer = await Stage().request("POST", path, content=b"{}", headers={"content-type": content_type})

    assert answer.status_code == 415


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_without_a_type_is_refused(path: str) -> None:
    for content in (b"{}", pieces([b"{", b"}"])):
        assert (await Stage().request("POST", path, content=content)).status_code == 415


async def test_an_empty_form_of_another_page_is_refused() -> None:
    stage = Stage()
    headers = {"content-type": "application/x-www-form-urlencoded", "content-length": "0"}
    assert (await stage.request("POST", PATHS[3], headers=headers)).status_code == 415


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_in_all_its_spellings_is_taken(content_type: str) -> None:
    answer = await Stage().request("POST", "/jobs", content=b"[]", headers={"content-type": content_type})

    assert answer.status_code == 422


@pytest.mark.parametrize("path", PATHS)
async def test_compressed_bodies_are_refused(path: str) -> None:
    headers = JSON | {"content-encoding": "gzip"}
    answer = await Stage().request("POST", path, content=gzip.compress(b"{}"), headers=headers)

    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("path", "limit"), [("/jobs", 256 * 1024), ("/jobs/bulk", 16 * 1024 * 1024), ("/dlq/retry", 256 * 1024)]
)
async def test_the_size_is_checked_by_the_header_and_while_reading(path: str, limit: int) -> None:
    stage = Stage()
    exact = b'"' + b"x" * (limit - 2) + b'"'
    assert (await stage.request("POST", path, content=exact, headers=JSON)).status_code == 422
    assert (await stage.request("POST", path, content=exact + b" ", headers=JSON)).status_code == 413

    read = 0

    def endless() -> Iterable[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield b" " * 65_536

    assert (await stage.request("POST", path, content=pieces(endless()), headers=JSON)).status_code == 413
    assert read <= limit + 3 * 65_536


async def test_a_body_announced_too_large_is_not_read() -> None:
    def never() -> Iterable[bytes]:
        raise AssertionError("was read")
        yield b""

    headers = JSON | {"content-length": str(256 * 1024 + 1)}
    answer = await Stage().request("POST", "/jobs", content=pieces(never()), headers=headers)

    assert answer.status_code == 413
    assert answer.json()["limit_bytes"] == 256 * 1024


async def test_a_body_in_pieces_is_put_together() -> None:
    answer = await Stage().request("POST", "/jobs", content=pieces([b'{"ty', b"", b'pe":', b'""}']), headers=JSON)

    assert answer.json()["errors"][0]["pointer"] == "/type"


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_does_not_come_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body.read_body, "__defaults__", (body.JOB_BYTES, 0.05))
    monkeypatch.setattr(bulk, "BULK_SECONDS", 0.05)
    monkeypatch.setattr(body, "LOOK", 0.02)
    never = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with asyncio.timeout(5):
        answer = await Stage().request("POST", path, content=stuck(), headers=JSON)

    assert answer.status_code == 408
    assert answer.json()["type"] == "urn:jobflow:problem:too-slow"
    assert answer.headers["connection"] == "close"


async def test_a_reader_that_somebody_else_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not answered: a server that stops must not wait for bodies."""
    never = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    reading = asyncio.create_task(Stage().request("POST", "/jobs", content=stuck(), headers=JSON))
    while not body.patience._until:
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not body.patience._until


@pytest.mark.parametrize("action", ["retry", "cancel", "discard"])
async def test_actions_take_no_members(action: str) -> None:
    stage = Stage()
    path = PATHS[3].replace("retry", action)
    for content, status in ((b'{"force":true}', 422), (b"[]", 422), (b"{", 400)):
        answer = await stage.request("POST", path, content=content, headers=JSON)
        assert answer.status_code == status
