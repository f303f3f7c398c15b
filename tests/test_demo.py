from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from jobflow import demo
from jobflow.context import Context
from jobflow.events import Event, Events
from jobflow.registry import load
from tests.support.runs import make_run

TYPES = load(["jobflow.demo"])


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the demo would have slept."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    random.seed(1)
    return seconds


def test_two_types_have_handlers_and_the_third_has_none_on_purpose() -> None:
    for name in ("email.send", "report.generate"):
        type_ = TYPES.types[name]
        assert (type_.max_attempts, type_.payload_type, type_.queue) == (5, dict, "default")
    assert TYPES.get("image.process") is None
    assert TYPES.defaults_for("image.process").max_attempts == 5


async def test_an_email_takes_about_a_second_and_always_succeeds(slept: list[float]) -> None:
    async def enqueue(*_: Any, **__: Any) -> Any: ...

    class Supervised:
        cause = None
        noticed = False

    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.extend)
    ctx = Context(make_run(), state=None, events=events, supervision=Supervised(), enqueue=enqueue, complete=enqueue)
    for _ in range(200):
        assert await demo.send_email({"to": "a@b.c"}, ctx) == {"sent_to": "a@b.c"}
    assert await demo.send_email({}, ctx) == {"sent_to": None}
    assert min(slept) >= 0.8
    assert max(slept) <= 1.2
    assert "a@b.c" not in repr(seen)


async def test_a_report_takes_a_few_seconds_and_fails_three_times_in_ten(slept: list[float]) -> None:
    failures = 0
    for _ in range(2_000):
        try:
            assert (await demo.generate_report({"name": "Q4"}))["report"] == "Q4"
        except RuntimeError:
            failures += 1
    assert 540 <= failures <= 660
    assert 2.0 <= min(slept) < 2.1
    assert 4.9 < max(slept) <= 5.0
