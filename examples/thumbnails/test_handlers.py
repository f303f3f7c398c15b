"""The handlers without servers: a folder, a payload, and something that looks like a Context."""
# ruff: noqa: S101

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest

from examples.thumbnails import pictures
from examples.thumbnails.handlers import Folder, One, make, make_all
from examples.thumbnails.submit import follow, submit
from jobflow import Cancel, Discard

JOB = UUID("0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60")


class FakeContext(SimpleNamespace):
    """What these handlers use of a Context."""

    def __init__(self, folder: Path) -> None:
        log = SimpleNamespace(info=lambda text, **fields: None)
        super().__init__(state=folder, job_id=JOB, attempt=1, cancelled=False, log=log, submitted=[])

    async def enqueue(self, type: str, payload: Any, **options: Any) -> None:
        self.submitted.append((type, payload, options))


@pytest.fixture
def ctx(tmp_path: Path) -> Any:
    (tmp_path / "sky.ppm").write_bytes(pictures.write(pictures.paint(20, 10)))
    return FakeContext(tmp_path)


def test_a_small_picture_is_made_and_a_second_run_changes_nothing(ctx: Any) -> None:
    for _ in range(2):
        assert make(One("sky", width=4), ctx) == {"file": "sky-small.ppm", "width": 4, "height": 2}
    small = pictures.read((ctx.state / "sky-small.ppm").read_bytes())

    assert (small.width, small.height, len(small.pixels)) == (4, 2, 24)
    assert sorted(path.name for path in ctx.state.iterdir()) == ["sky-small.ppm", "sky.ppm"]


def test_what_never_becomes_a_picture_is_given_up(ctx: Any) -> None:
    (ctx.state / "text.ppm").write_bytes(b"Dear Sir or Madam")
    for name in ("text", "missing"):
        with pytest.raises(Discard, match=name):
            make(One(name), ctx)


def test_half_a_picture_has_another_attempt(ctx: Any) -> None:
    whole = (ctx.state / "sky.ppm").read_bytes()
    (ctx.state / "sky.ppm").write_bytes(whole[:100])
    with pytest.raises(pictures.Unfinished):
        make(One("sky"), ctx)

    (ctx.state / "sky.ppm").write_bytes(whole)
    assert make(One("sky"), ctx)["width"] == 20


def test_it_stops_when_it_is_told_to(ctx: Any) -> None:
    ctx.cancelled = True
    with pytest.raises(TimeoutError):
        make(One("sky"), ctx)
    assert not (ctx.state / "sky-small.ppm").exists()


def test_one_job_for_each_picture(ctx: Any) -> None:
    (ctx.state / "old-small.ppm").write_bytes(b"")

    assert asyncio.run(make_all(Folder(width=32), ctx)) == {"submitted": 1}
    options = {"unique_key": "thumbnail:sky:32", "on_conflict": "return", "tags": [f"of:{JOB}"]}
    assert ctx.submitted == [("thumbnail.make", {"name": "sky", "width": 32}, options)]


def test_nothing_to_do_is_no_failure(ctx: Any) -> None:
    (ctx.state / "sky.ppm").unlink()
    assert isinstance(asyncio.run(make_all(Folder(), ctx)), Cancel)


def test_it_is_sent_again_with_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(
            503 if len(keys) == 2 else 201, headers={"Retry-After": "5"}, json={"status": "completed"}
        )

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://x") as http:
        assert submit(http, {"type": "thumbnail.all"}) == {"status": "completed"}
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_it_is_followed_until_all_have_ended() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        status = "completed" if "/jobs/1" in asked else "processing"
        return httpx.Response(200, json={"items": [{"id": "1", "status": status}]})

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://x") as http:
        assert follow(http, "of:x")[0]["status"] == "completed"
    assert asked == ["/jobs", "/jobs/1", "/jobs"]
