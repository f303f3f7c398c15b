from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import jobflow
from jobflow.context import FOREVER, Cancel, Context, Discard, Snooze
from jobflow.events import Event, Events, HandlerLog
from tests.support.runs import JOB, make_run


class Supervised:
    cause: str | None = None
    noticed = False


def context(**parts: Any) -> Context:
    async def enqueue(type: str, payload: Any, **options: Any) -> UUID:
        raise AssertionError

    async def complete(supervision: Any, session: Any, result: Any) -> None:
        raise AssertionError

    values: dict[str, Any] = {
        "state": None, "events": Events(), "supervision": Supervised(), "enqueue": enqueue, "complete": complete,
    }  # fmt: skip
    return Context(make_run(type="t", queue="q", attempt=2, max_attempts=3), **values | parts)


def test_the_package_exports_what_a_handler_needs_and_nothing_else() -> None:
    assert set(jobflow.__all__) == {"Cancel", "Context", "Discard", "Snooze", "__version__", "job", "lifespan"}
    assert jobflow.__version__[0].isdigit()


def test_it_tells_the_handler_where_it_stands() -> None:
    ctx = context(state={"http": 1})
    assert (ctx.job_id, ctx.type, ctx.queue, ctx.attempt, ctx.max_attempts) == (JOB, "t", "q", 2, 3)
    assert ctx.state == {"http": 1}


def test_it_follows_the_supervision() -> None:
    supervision = Supervised()
    ctx = context(supervision=supervision)
    assert not ctx.cancelled
    supervision.cause = "drain"
    assert not supervision.noticed
    assert ctx.cancelled
    assert supervision.noticed


async def test_a_completion_in_a_transaction_is_passed_on_with_the_run_it_belongs_to() -> None:
    calls: list[tuple[Any, ...]] = []

    async def complete(*args: Any) -> None:
        calls.append(args)

    supervision = Supervised()
    ctx = context(supervision=supervision, complete=complete)
    await ctx.complete_in("session", {"a": 1})
    await ctx.complete_in("session")
    assert calls == [(supervision, "session", {"a": 1}), (supervision, "session", None)]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_lines_are_events_of_the_run(level: str) -> None:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.extend)
    getattr(context(events=events).log, level)("hello", level="mine", message="too", n=1)
    (event,) = seen
    assert isinstance(event, HandlerLog)
    assert (event.run.id, event.level, event.message) == (JOB, level, "hello")
    assert event.fields == {"level": "mine", "message": "too", "n": 1}


async def test_enqueue_passes_everything_on() -> None:
    calls = []

    async def enqueue(type: str, payload: Any, **options: Any) -> UUID:
        calls.append((type, payload, options))
        return JOB

    ctx = context(enqueue=enqueue)
    assert await ctx.enqueue("a", {"x": 1}, queue="media") == JOB
    await ctx.enqueue("b")
    assert calls == [("a", {"x": 1}, {"queue": "media"}), ("b", {}, {})]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), FOREVER + 1, "5", None])
def test_a_snooze_has_bounds(seconds: Any) -> None:
    with pytest.raises(ValueError, match="Snooze takes"):
        Snooze(seconds)


def test_a_snooze_within_bounds() -> None:
    assert [Snooze(0).seconds, Snooze(FOREVER).seconds] == [0, FOREVER]


@pytest.mark.parametrize("reason", ["", "x" * 1_001, None, 5])
def test_a_cancel_has_a_reason(reason: Any) -> None:
    with pytest.raises(ValueError, match="reason"):
        Cancel(reason)


def test_discard_is_raised_with_its_reason() -> None:
    with pytest.raises(Discard, match=r"^not worth it$"):
        raise Discard("not worth it")
