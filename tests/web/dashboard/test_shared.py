"""Many ask, few read, and nobody gets what was read before the hint they follow."""

from __future__ import annotations

import asyncio

import pytest

from jobflow.web.dashboard import shared as module
from jobflow.web.dashboard.shared import Shared


class Source:
    """``value`` as it is when a read begins; ``gate`` holds the answers back. ``hints``: the number of the last round."""

    def __init__(self) -> None:
        self.reads = 0
        self.value = 0
        self.hints = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.shared = Shared(lambda: self.hints)

    async def read(self) -> int:
        self.reads += 1
        value = self.value
        await self.gate.wait()
        return value

    async def ask(self, key: str = "key") -> int:
        return await self.shared(key, self.read)

    def change(self) -> None:
        self.value += 1
        self.hints += 1


async def test_a_crowd_costs_one_read_and_so_do_those_who_come_later() -> None:
    source = Source()
    assert await asyncio.gather(*(source.ask() for _ in range(50))) == [0] * 50
    assert await source.ask() == 0
    assert source.reads == 1


async def test_whoever_follows_a_hint_gets_what_was_read_after_it() -> None:
    source = Source()
    assert await source.ask() == 0
    source.change()
    assert await asyncio.gather(*(source.ask() for _ in range(10))) == [1] * 10
    assert source.reads == 2


async def test_a_hint_during_a_read_leads_to_one_more_read_after_it() -> None:
    source = Source()
    source.gate.clear()
    first = asyncio.create_task(source.ask())
    while not source.reads:
        await asyncio.sleep(0)
    source.change()
    later = [asyncio.create_task(source.ask()) for _ in range(10)]
    await asyncio.sleep(0)
    source.change()  # while they wait for the first: their read has not begun
    later += [asyncio.create_task(source.ask()) for _ in range(10)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert source.reads == 1  # one at a time
    source.gate.set()

    assert await first == 0
    assert await asyncio.gather(*later) == [2] * 20
    assert source.reads == 2


async def test_an_answer_without_hints_counts_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP", 0.05)
    source = Source()
    assert await source.ask() == 0
    source.value = 1  # while Redis is away nobody hears of it
    async with asyncio.timeout(5):
        while await source.ask() != 1:
            await asyncio.sleep(0.01)
        while source.shared._reads:
            await asyncio.sleep(0.01)


async def test_who_did_something_sees_it_at_once() -> None:
    source = Source()
    assert await source.ask() == 0
    source.value = 1
    source.shared.forget()
    assert await source.ask() == 1


async def test_a_failure_reaches_all_who_asked_and_is_not_kept() -> None:
    broken = True

    async def read() -> int:
        await asyncio.sleep(0)
        if broken:
            raise ValueError("away")
        return 1

    shared = Shared(lambda: 0)
    answers = await asyncio.gather(*(shared("key", read) for _ in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError] * 2
    broken = False
    assert await shared("key", read) == 1


async def test_one_who_leaves_does_not_take_the_answer_along() -> None:
    source = Source()
    source.gate.clear()
    leaves, stays = asyncio.create_task(source.ask()), asyncio.create_task(source.ask())
    await asyncio.sleep(0)
    leaves.cancel()
    source.gate.set()

    assert await stays == 0
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_other_things_are_read_beside_it() -> None:
    source = Source()
    source.gate.clear()
    first = asyncio.create_task(source.ask("one"))
    other = asyncio.create_task(source.ask("other"))
    async with asyncio.timeout(5):
        while source.reads < 2:
            await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(first, other) == [0, 0]
