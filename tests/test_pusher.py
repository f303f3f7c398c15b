from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from jobflow.broker import Broker, Entry
from jobflow.errors import BrokerUnavailable
from jobflow.pusher import CHUNK, Pusher
from tests.support.commands import free_port

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def entries(count: int, priority: int = 5) -> list[Entry]:
    return [Entry(priority, NOW, uuid7()) for _ in range(count)]


class Heard:
    def __init__(self, pusher: Pusher) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        pusher.heard = lambda queue, cold: self.calls.append((queue, cold))


@pytest.fixture
def pushes(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The calls of the broker: queue and number of entries."""
    calls: list[tuple[str, int]] = []
    push = broker.push

    async def noted(queue: str, some: Iterable[Entry]) -> Any:
        some = list(some)
        calls.append((queue, len(some)))
        return await push(queue, some)

    monkeypatch.setattr(broker, "push", noted)
    return calls


async def test_what_is_handed_over_is_in_the_lane_after_a_flush(broker: Broker) -> None:
    await broker.fill("q", 5, "", False, b"")
    pusher, some = Pusher(broker), entries(3)
    heard = Heard(pusher)
    pusher.push("q", some)
    assert heard.calls == []  # outside of anybody's request
    await pusher.flush()
    assert {entry.id for entry in some} == set((await broker.pop("q", NOW, 9)).ids)
    assert heard.calls == [("q", [])]


async def test_those_who_listen_learn_of_cold_lanes(broker: Broker) -> None:
    pusher = Pusher(broker)
    heard = Heard(pusher)
    pusher.push("q", [*entries(1, 2), *entries(1, 7)])
    await pusher.flush()
    assert heard.calls == [("q", [2, 7])]


async def test_many_requests_share_a_push_and_big_ones_are_cut(broker: Broker, pushes: list[tuple[str, int]]) -> None:
    await broker.fill("q", 5, "", False, b"")
    pusher = Pusher(broker)
    heard = Heard(pusher)
    for _ in range(10):
        pusher.push("q", entries(1))
    pusher.push("big", entries(CHUNK * 2 + 1))
    await pusher.flush()
    assert sorted([("q", 10), ("big", CHUNK), ("big", CHUNK), ("big", 1)]) == sorted(pushes)
    assert sorted(queue for queue, _ in heard.calls) == ["big", "big", "big", "q"]


async def test_what_comes_while_a_push_is_on_its_way_is_pushed_next(
    broker: Broker, pushes: list[tuple[str, int]]
) -> None:
    pusher = Pusher(broker)
    more = [entries(2), entries(3)]
    pusher.heard = lambda queue, cold: pusher.push(queue, more.pop()) if more else None
    pusher.push("q", entries(1))
    await pusher.flush()
    assert pushes == [("q", 1), ("q", 3), ("q", 2)]
    pusher.push("q", entries(4))
    await pusher.flush()
    assert pushes[-1] == ("q", 4)


async def test_without_redis_the_listeners_are_told_all_the_same_and_nothing_is_raised(broker: Broker) -> None:
    away = Broker(f"redis://127.0.0.1:{free_port()}/0", lane_size=10, pool_size=4)
    with pytest.raises(BrokerUnavailable):
        await away.push("q", entries(1))
    pusher = Pusher(away)
    heard = Heard(pusher)
    pusher.push("a", entries(1))
    pusher.push("b", entries(1))
    await pusher.flush()
    assert sorted(heard.calls) == [("a", []), ("b", [])]
    await pusher.flush()
    await away.close()


async def test_the_time_of_a_commit_is_passed_on(broker: Broker) -> None:
    pusher = Pusher(broker)
    told: list[datetime] = []
    pusher.told = told.append
    pusher.push("mail", entries(1), NOW)
    pusher.push("mail", entries(1))
    await pusher.flush()
    assert told == [NOW]


@pytest.mark.parametrize("taken", [True, False])
async def test_new_jobs_that_somebody_takes_are_not_pushed(
    broker: Broker, pushes: list[tuple[str, int]], taken: bool
) -> None:
    pusher, some = Pusher(broker), entries(3)
    heard, calls = Heard(pusher), []

    def offer(queue: str, offered: list[Entry]) -> bool:
        calls.append((queue, offered))
        return taken

    pusher.told, pusher.offer = calls.append, offer
    pusher.push("q", some, NOW)
    assert calls == [NOW, ("q", some)], "the time first: by it they are due"
    await pusher.flush()
    assert pushes == ([] if taken else [("q", 3)])
    assert [queue for queue, _ in heard.calls] == [queue for queue, _ in pushes]


async def test_only_new_jobs_are_offered(broker: Broker, pushes: list[tuple[str, int]]) -> None:
    """What runs again may have been taken by somebody else by now: its lane knows each id once."""
    pusher = Pusher(broker)
    offered: list[str] = []
    pusher.offer = lambda queue, entries: bool(offered.append(queue)) or True
    pusher.push("q", entries(2))
    await pusher.flush()
    assert offered == []
    assert pushes == [("q", 2)]
