"""The rate limit, with a broker that is scripted and without one."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from jobflow.errors import BrokerUnavailable
from jobflow.web import limits
from jobflow.web.limits import SLICES, LocalWindow, RateLimiter


class Broker:
    """Grants up to ``limit`` in all and keeps each question open until it is let go."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, int]] = []
        self.used: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def take(self, client: str, wanted: int, limit: int, window: float) -> tuple[int, int, float]:
        self.questions.append((client, wanted))
        await self.open.wait()
        if self.error:
            raise self.error
        granted = min(wanted, limit - self.used[client])
        self.used[client] += granted
        return granted, limit - self.used[client], 30.2


def limiter(broker: Broker, limit: int = 10, processes: int = 1) -> RateLimiter:
    return RateLimiter(broker.take, limit=limit, window=60, live_processes=lambda: processes)


async def test_one_turn_is_one_question() -> None:
    broker = Broker()
    verdicts = await asyncio.gather(*(limiter_.check("a") for limiter_ in [limiter(broker)] * 8))

    assert broker.questions == [("a", 8)]
    assert all(verdict.granted for verdict in verdicts)
    assert verdicts[0].headers == [
        (b"ratelimit-policy", b'"default";q=10;w=60'),
        (b"ratelimit", b'"default";r=9;t=31'),
    ]
    assert verdicts[7].headers[1] == (b"ratelimit", b'"default";r=2;t=31')


async def test_what_comes_during_a_question_goes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 60.0)
    broker = Broker()
    broker.open.clear()
    asked = limiter(broker, limit=100)
    first = [asyncio.create_task(asked.check("a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(asked.check("a")) for _ in range(5)]
    other = asyncio.create_task(asked.check("b"))
    await asyncio.sleep(0.01)
    assert broker.questions == [("a", 3), ("b", 1)]

    broker.open.set()
    await asyncio.gather(*first, *later, other)
    assert broker.questions == [("a", 3), ("b", 1), ("a", 5)]


async def test_no_more_than_the_limit_pass() -> None:
    asked = limiter(Broker(), limit=10)
    verdicts = await asyncio.gather(*(asked.check("a") for _ in range(25)))

    assert [v.granted for v in verdicts] == [True] * 10 + [False] * 15
    refused = asked.refusal(verdicts[-1])
    assert refused.status == 429
    assert refused.headers == {"Retry-After": "31"}
    assert "RATE_LIMIT_MAX" in str(refused)


@pytest.mark.parametrize("hung", [False, True])
async def test_without_redis_the_process_counts_its_share(hung: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.02)
    monkeypatch.setattr(limits, "PAUSE", 60.0)
    broker = Broker()
    if hung:
        broker.open.clear()
    else:
        broker.error = BrokerUnavailable("away")
    asked = limiter(broker, limit=10, processes=3)
    verdicts = await asyncio.gather(*(asked.check("a") for _ in range(8)))
    verdicts += await asyncio.gather(*(asked.check("b") for _ in range(2)))

    assert sum(v.granted for v in verdicts[:8]) == 10 // 3
    assert all(v.granted for v in verdicts[8:])
    assert broker.questions == [("a", 8)]  # not asked again at once

    monkeypatch.setattr(limits, "PATIENCE", 60.0)
    broker.open.set()
    broker.error = None
    monkeypatch.setattr(asked, "_ask_again", 0.0)
    assert (await asked.check("a")).granted
    assert broker.questions[-1] == ("a", 1)


async def test_a_bug_in_the_broker_reaches_the_requests_and_not_the_next_ones() -> None:
    broker = Broker()
    broker.error = ValueError("bug")
    asked = limiter(broker)
    results = await asyncio.gather(*(asked.check("a") for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3

    broker.error = None
    assert (await asked.check("a")).granted


async def test_a_request_that_was_cancelled_does_not_harm_the_others() -> None:
    broker = Broker()
    broker.open.clear()
    asked = limiter(broker)
    gone, stays = asyncio.create_task(asked.check("a")), asyncio.create_task(asked.check("a"))
    await asyncio.sleep(0.01)
    gone.cancel()
    broker.open.set()

    assert (await stays).granted


def test_the_local_window_slides() -> None:
    window = LocalWindow(60)
    assert window.take("a", 6, 10, now=0.0)[:2] == (6, 4)
    assert window.take("a", 6, 10, now=30.0)[:2] == (4, 0)
    granted, remaining, reset = window.take("a", 1, 10, now=59.0)
    assert (granted, remaining) == (0, 0)
    assert 0 < reset <= 2 + 60 / SLICES  # the six of the beginning leave then
    assert window.take("a", 10, 10, now=59.0 + reset)[:2] == (6, 0)
    assert window.take("a", 10, 10, now=200.0)[:2] == (10, 0)


def test_no_span_of_a_window_sees_more_than_the_limit() -> None:
    window, granted = LocalWindow(10), []
    for step in range(4_000):
        now = step * 0.01
        granted += [now] * window.take("a", 1, 50, now)[0]
    for start in granted:
        assert sum(start <= at < start + 10 for at in granted) <= 50
    assert len(granted) >= 150  # and it does let them through


def test_refused_requests_do_not_prolong_the_wait() -> None:
    window = LocalWindow(10)
    window.take("a", 5, 5, now=0.0)
    for step in range(100):
        assert window.take("a", 1, 5, now=step * 0.1)[0] == 0
    assert window.take("a", 1, 5, now=10.2)[0] == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENTS", 100)
    window = LocalWindow(10)
    for number in range(1_000):
        window.take(f"client {number}", 1, 5, now=0.0)
    assert len(window._clients) <= 100
    window.take("late", 1, 5, now=1_000.0)
    assert list(window._clients) == ["late"]
