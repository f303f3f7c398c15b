"""A slot is never given twice, and none is lost."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from jobflow.engine import slots as module
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.lifecycle import Run
from tests.support.runs import make_run


def runs(*numbers: int) -> list[Run]:
    return [make_run(id=UUID(int=n), run_epoch=n) for n in numbers]


async def test_reserved_slots_are_not_reserved_again() -> None:
    slots = Slots(5, Wake())
    assert slots.reserve(3) == 3
    assert slots.reserve(3) == 2
    assert slots.reserve(3) == 0
    assert slots.free == 0


async def test_a_claim_that_brought_less_gives_the_rest_back() -> None:
    slots = Slots(5, Wake())
    assert slots.fill(slots.reserve(4), runs(1)) == 1
    assert slots.free == 4
    slots.fill(slots.reserve(4), [])
    assert slots.free == 4
    assert len(slots.inbox) == 1


async def test_no_more_is_promised_than_is_about_to_fall_free() -> None:
    freed = Wake()
    slots = Slots(5, freed)
    assert slots.promise(9) == 0
    slots.fill(slots.reserve(5), runs(1, 2, 3, 4, 5))
    waiter = asyncio.create_task(freed.wait(60))
    await asyncio.sleep(0)
    slots.expect(runs(1, 2, 3, 9))  # the last one has no slot here
    await asyncio.wait_for(waiter, 10)
    assert (slots.promise(2), slots.promise(9), slots.promise(9)) == (2, 1, 0)
    assert slots.free == 0, "promised is not free"
    slots.keep_ahead(3, "q", [UUID(int=7), UUID(int=8)])
    assert slots.promise(9) == 1, "there was nothing for the third"
    assert slots.take_ahead() is None
    slots.release(runs(1))
    assert slots.take_ahead() == ("q", [UUID(int=7)])
    slots.give_up(runs(1, 2, 3, 9))  # Postgres has not answered for the others
    assert slots.promise(9) == 0
    assert slots.take_ahead() is None


async def test_a_claim_waits_for_more_than_is_free_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = Wake()
    slots = Slots(10, freed)
    slots.fill(slots.reserve(10), runs(*range(10)))
    slots.expect(runs(0, 1))
    slots.release(runs(0, 1))
    assert not slots.scarce, "no ending is on its way"
    slots.expect(runs(2, 3))
    assert not slots.scarce, "as many are free"
    slots.expect(runs(4))
    assert slots.scarce
    assert slots.promise(9) == 5, "for the free ones, too"
    slots.keep_ahead(5, "q", [])
    waiter = asyncio.create_task(freed.wait(60))
    await asyncio.sleep(0)
    slots.give_up(runs(2, 3, 4))  # Postgres has not answered
    await asyncio.wait_for(waiter, 10)
    assert not slots.scarce
    slots.expect(runs(2, 3, 4, 5, 6, 7))
    assert slots.scarce
    slots.release(runs(2, 3, 4))
    assert (slots.free, slots.scarce) == (5, False), "a claim takes no more than that"
    slots.reserve(3)
    assert slots.scarce
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    slots.expect([])
    assert not slots.scarce, "Postgres takes its time: free slots are used as they are"


async def test_a_slot_is_free_again_and_somebody_is_woken() -> None:
    freed = Wake()
    slots = Slots(1, freed)
    slots.fill(slots.reserve(1), runs(1))
    waiter = asyncio.create_task(freed.wait(10))
    await asyncio.sleep(0)
    slots.release(runs(1))
    await asyncio.wait_for(waiter, 5)
    assert slots.free == 1
    slots.release(runs(1))  # an ending that was accepted twice frees one slot
    assert slots.free == 1


async def test_another_run_of_the_same_job_has_a_slot_of_its_own() -> None:
    slots = Slots(2, Wake())
    again = make_run(id=UUID(int=1), run_epoch=2)
    slots.fill(slots.reserve(2), [*runs(1), again])
    slots.release([again])
    assert list(slots.runs) == [(UUID(int=1), 1)]


async def test_written_off_slots_are_gone_until_they_are_restored() -> None:
    slots = Slots(2, Wake())
    slots.fill(slots.reserve(1), runs(1))
    (supervision,) = slots.runs.values()
    slots.write_off(supervision)
    assert slots.free == 0
    assert slots.reserve(5) == 0
    slots.release(runs(1))
    assert slots.free == 1
    slots.restore(supervision)
    assert slots.free == 2


async def test_whatever_is_done_in_whatever_order_there_are_never_more_than_all() -> None:
    chance = random.Random(7)
    slots, number, claims = Slots(10, Wake()), 0, []
    for _ in range(3_000):
        step = chance.random()
        if step < 0.4:
            claims.append(slots.reserve(chance.randint(0, 6)))
        elif step < 0.7 and claims:
            want = claims.pop(chance.randrange(len(claims)))
            brought = runs(*range(number, number + chance.randint(0, want)))
            number += len(brought)
            slots.fill(want, brought)
        elif slots.runs:
            slots.release([chance.choice(list(slots.runs.values())).run])
        assert 0 <= slots.free <= 10
        assert slots.free + len(slots.runs) + sum(claims) == 10


async def test_one_job_that_lost_two_processes_runs_at_a_time() -> None:
    slots = Slots(5, Wake())
    first, second = runs(1, 2)
    slots.fill(slots.reserve(2), [first, second])
    assert slots.isolate(first)
    assert not slots.isolate(second)
    assert slots.isolate(first)
    slots.release([first])
    assert slots.isolate(second)
    assert not slots.isolate(first)
