from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jobflow.batcher import Batcher


class Gate:
    """A flush that waits to be let through, doubles its items and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def flush(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        await self.open.wait()
        if 0 in items:
            raise LookupError("zero")
        return [ValueError(str(item)) if item < 0 else item * 2 for item in items]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_alone_an_item_goes_at_once() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate.flush, 10)
    task = asyncio.create_task(batcher.submit(1))
    await settle()
    assert gate.batches == [[1]]
    gate.open.set()
    assert await task == 2


async def test_while_one_batch_is_on_its_way_the_next_collects_up_to_the_limit() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate.flush, 3)
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    rest = [asyncio.create_task(batcher.submit(n)) for n in range(2, 7)]
    await settle()
    assert gate.batches == [[1]]
    gate.open.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10, 12]
    assert gate.batches == [[1], [2, 3, 4], [5, 6]]


async def test_items_that_come_together_share_a_batch() -> None:
    gate = Gate()
    gate.open.set()
    batcher: Batcher[int, int] = Batcher(gate.flush, 100)
    assert await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3))) == [2, 4, 6]
    assert gate.batches == [[1, 2, 3]]


async def test_each_item_gets_what_became_of_it() -> None:
    gate = Gate()
    gate.open.set()
    batcher: Batcher[int, int] = Batcher(gate.flush, 100)
    found = await asyncio.gather(*(batcher.submit(n) for n in (1, -2, 3)), return_exceptions=True)
    assert [repr(x) if isinstance(x, Exception) else x for x in found] == [2, "ValueError('-2')", 6]


async def test_what_flush_raises_all_of_its_batch_gets_and_the_next_batch_goes() -> None:
    gate = Gate()
    gate.open.set()
    batcher: Batcher[int, int] = Batcher(gate.flush, 2)
    found = await asyncio.gather(*(batcher.submit(n) for n in (1, 0, 3, 4)), return_exceptions=True)
    assert [LookupError, LookupError, int, int] == [type(x) for x in found]
    assert await batcher.submit(5) == 10


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_flush_that_gives_too_few_or_too_many_outcomes_leaves_nobody_waiting(count: int) -> None:
    async def flush(items: list[int]) -> Sequence[int | Exception]:
        return [7] * count

    batcher: Batcher[int, int] = Batcher(flush, 10)
    submitted = asyncio.gather(*(batcher.submit(n) for n in (1, 2)), return_exceptions=True)
    assert [type(found) for found in await asyncio.wait_for(submitted, 5)] == [ValueError, ValueError]


async def test_who_goes_away_takes_nobody_along() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate.flush, 10)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in (1, 2, 3)]
    await settle()
    tasks[0].cancel()
    tasks[1].cancel()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert await asyncio.wait_for(tasks[2], 5) == 6
    assert gate.batches == [[1, 2, 3]]


async def test_after_a_rest_it_starts_again() -> None:
    gate = Gate()
    gate.open.set()
    batcher: Batcher[int, int] = Batcher(gate.flush, 10)
    for n in range(1, 4):
        assert 2 * n == await batcher.submit(n)
        await settle()
    assert gate.batches == [[1], [2], [3]]
