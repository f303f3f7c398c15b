"""Handed over is only what nobody else would have taken first, and what there is a slot for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from jobflow.broker import Entry
from jobflow.engine.agenda import Agenda
from jobflow.engine.handoff import Handoff
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.slots import Slots

SLOTS = 8
FETCHERS = 2


class Idle:
    """A process in which nothing waits: its fetchers rest."""

    def __init__(self) -> None:
        self.agenda, self.lease = Agenda(), Lease(15.0)
        self.slots = Slots(SLOTS, self.agenda.wake)
        self.handoff = Handoff(agenda=self.agenda, slots=self.slots, lease=self.lease)
        self.lease.take(uuid7())
        self.lease.confirm(boottime(), boottime(), datetime.now(UTC))
        self.agenda.know({"a": False, "b": False, "c": False})
        while self.agenda.next(self.lease.now()) is not None:
            pass
        self.fetchers: list[asyncio.Task[None]] = []

    async def rest(self, fetchers: int = FETCHERS) -> None:
        self.agenda.wake._set = False  # left by the news above
        self.fetchers += [asyncio.create_task(self.agenda.wake.wait(60)) for _ in range(fetchers)]
        await asyncio.sleep(0)

    async def get_up(self) -> None:
        for task in self.fetchers:
            task.cancel()
        await asyncio.gather(*self.fetchers, return_exceptions=True)
        self.fetchers.clear()

    async def woken(self) -> int:
        await asyncio.sleep(0)
        return sum(task.done() for task in self.fetchers)

    def entries(self, count: int = 1, *, seconds: float = 0.0) -> list[Entry]:
        """Due by now, or in so many seconds."""
        return [Entry(5, self.lease.now() + timedelta(seconds=seconds), uuid7()) for _ in range(count)]


@asynccontextmanager
async def idling() -> AsyncIterator[Idle]:
    idle = Idle()
    await idle.rest()
    try:
        yield idle
    finally:
        await idle.get_up()


@pytest.fixture
async def idle() -> AsyncIterator[Idle]:
    async with idling() as made:
        yield made


async def refused(idle: Idle, entries: list[Entry], queue: str = "a") -> None:
    """They are, and leave no trace."""
    free, woken = idle.slots.free, await idle.woken()
    assert not idle.handoff.offer(queue, entries)
    assert idle.handoff.take() is None
    assert idle.slots.free == free
    assert await idle.woken() == woken


# --- taken ---


async def test_what_is_taken_has_its_slots_and_a_fetcher_that_comes_for_it(idle: Idle) -> None:
    some = idle.entries(3)
    assert idle.handoff.offer("a", some)
    assert idle.slots.free == SLOTS - 3
    assert await idle.woken() == 1
    assert idle.handoff.take() == ("a", [entry.id for entry in some])
    assert idle.handoff.take() is None
    assert idle.slots.free == SLOTS - 3, "whoever claims them fills their slots"


async def test_as_many_as_slots_are_free_and_one_more_is_too_many(idle: Idle) -> None:
    idle.slots.reserve(SLOTS - 3)
    await refused(idle, idle.entries(4))
    assert idle.handoff.offer("a", idle.entries(3))
    assert not idle.handoff.offer("a", idle.entries(1))


async def test_no_more_than_a_claim_takes_so_that_other_processes_get_theirs(idle: Idle) -> None:
    most = idle.slots.batch
    assert most < SLOTS
    await refused(idle, idle.entries(most + 1))
    assert idle.handoff.offer("a", idle.entries(most - 1))
    assert not idle.handoff.offer("a", idle.entries(2))
    assert idle.handoff.offer("a", idle.entries(1))


async def test_what_comes_before_the_fetcher_does_joins_though_nobody_rests_any_more() -> None:
    async with idling() as idle:
        await idle.get_up()
        await idle.rest(1)
        first, second = idle.entries(1), idle.entries(2)
        assert idle.handoff.offer("a", first)
        assert not idle.agenda.wake.awaited
        assert idle.handoff.offer("a", second)
        assert idle.handoff.take() == ("a", [entry.id for entry in first + second])
        await refused(idle, idle.entries())


async def test_a_claim_is_for_one_queue(idle: Idle) -> None:
    handed = {queue: idle.entries(1) for queue in ("a", "b")}
    for queue, some in handed.items():
        assert idle.handoff.offer(queue, some)
    assert await idle.woken() == 2
    taken = [idle.handoff.take(), idle.handoff.take()]
    assert {queue: [entry.id for entry in some] for queue, some in handed.items()} == dict(filter(None, taken))
    assert idle.handoff.take() is None


async def test_each_queue_has_a_fetcher_of_its_own_or_what_waits_in_redis_would_never_get_one(idle: Idle) -> None:
    assert idle.handoff.offer("a", idle.entries())
    assert idle.handoff.offer("b", idle.entries())
    assert not idle.handoff.offer("c", idle.entries()), "both have work"
    taken = idle.handoff.take()
    assert taken is not None
    assert not idle.handoff.offer(taken[0], idle.entries()), "its fetcher is gone, and the other one's is another queue"
    assert idle.slots.free == SLOTS - 2


# --- refused ---


async def nobody_rests(idle: Idle) -> None:
    await idle.get_up()


async def the_lease_has_lapsed(idle: Idle) -> None:
    idle.lease.trust_until = boottime() - 1


async def an_audit_is_due(idle: Idle) -> None:
    idle.lease.shake()


async def it_is_paused(idle: Idle) -> None:
    idle.agenda.know({"a": True})


async def it_is_gone(idle: Idle) -> None:
    idle.agenda.know({"b": False})


async def others_of_it_may_wait(idle: Idle) -> None:
    idle.agenda.notice("a")
    assert idle.agenda.wake.awaited, "somebody rests all the same"


async def slots_are_taken(idle: Idle) -> None:
    assert idle.slots.reserve(SLOTS - 1)


async def it_was_closed(idle: Idle) -> None:
    assert idle.handoff.close() == {}


@pytest.mark.parametrize(
    "spoil",
    [
        nobody_rests,
        the_lease_has_lapsed,
        an_audit_is_due,
        it_is_paused,
        it_is_gone,
        others_of_it_may_wait,
        slots_are_taken,
        it_was_closed,
    ],
)
async def test_nothing_is_taken_when(idle: Idle, spoil: Callable[[Idle], Awaitable[None]]) -> None:
    await spoil(idle)
    await refused(idle, idle.entries(2))


async def test_nothing_is_taken_of_a_queue_that_is_not_known(idle: Idle) -> None:
    await refused(idle, idle.entries(), "new")


async def test_nothing_is_taken_when_one_of_them_is_not_due(idle: Idle) -> None:
    await refused(idle, [*idle.entries(), *idle.entries(seconds=60)])
    assert idle.handoff.offer("a", idle.entries(2))


async def test_nothing_is_taken_that_would_overtake_what_waits_in_its_queue(idle: Idle) -> None:
    await others_of_it_may_wait(idle)
    await refused(idle, idle.entries())
    assert idle.handoff.offer("b", idle.entries()), "of another one there is no news"
    assert idle.agenda.next(idle.lease.now()) == "a"


# --- the end ---


async def test_closing_gives_back_what_nobody_came_for(idle: Idle) -> None:
    left = {queue: idle.entries(2) for queue in ("a", "b")}
    for queue, some in left.items():
        assert idle.handoff.offer(queue, some)
    assert idle.handoff.close() == left
    assert idle.handoff.close() == {}
    await idle.rest()
    assert idle.agenda.wake.awaited
    await refused(idle, idle.entries(0))
