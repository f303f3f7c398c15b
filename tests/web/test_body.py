"""How bodies must come."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterable

import pytest

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


@pytest.mark.parametrize("action", ["retry", "cancel", "discard"])
async def test_actions_take_no_members(action: str) -> None:
    stage = Stage()
    path = PATHS[3].replace("retry", action)
    for content, status in ((b'{"force":true}', 422), (b"[]", 422), (b"{", 400)):
        answer = await stage.request("POST", path, content=content, headers=JSON)
        assert answer.status_code == status
