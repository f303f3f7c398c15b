"""Many ask, few read, and nobody gets what was read before they asked."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from jobflow.web.dashboard.shared import Shared


class Source:
    def __init__(self) -> None:
        self.reads = 0
        self.value = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> int:
        self.reads += 1
        value = self.value
        await self.gate.wait()
        return value


async def test_a_crowd_costs_one_read() -> None:
    source = Source()
    shared = partial(Shared(), "key", source.read)

    assert await asyncio.gather(*(shared() for _ in range(50))) == [0] * 50
    assert source.reads == 1


async def test_whoever_asks_during_a_read_gets_the_next_one() -> None:
    source = Source()
    shared = partial(Shared(), "key", source.read)
    source.gate.clear()
    first = asyncio.create_task(shared())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.value = 1
    later = [asyncio.create_task(shared()) for _ in range(10)]
    await asyncio.sleep(0)
    source.gate.set()

    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 10
    assert source.reads == 2


async def test_a_failure_reaches_all_who_asked_and_is_not_kept() -> None:
    broken = True

    async def read() -> int:
        await asyncio.sleep(0)
        if broken:
            raise ValueError("away")
        return 1

    shared = partial(Shared(), "key", read)
    assert all(
        isinstance(answer, ValueError) for answer in await asyncio.gather(shared(), shared(), return_exceptions=True)
    )
    broken = False
    assert await shared() == 1


async def test_one_who_leaves_does_not_take_the_answer_along() -> None:
    source = Source()
    shared = partial(Shared(), "key", source.read)
    source.gate.clear()
    leaves, stays = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0)
    leaves.cancel()
    source.gate.set()

    assert await stays == 0
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_other_things_are_read_beside_it_and_nothing_is_kept() -> None:
    shared = Shared()
    one, other = Source(), Source()
    one.gate.clear()
    first = asyncio.create_task(shared("one", one.read))
    assert await shared("other", other.read) == 0
    one.gate.set()
    assert await first == 0
    assert (shared._running, shared._next) == ({}, {})
