"""Takes a run, executes it, hands its ending over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from jobflow.engine.completer import Endings
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.engine.worker import Worker
from jobflow.events import Event, Events, RunStarted
from jobflow.lifecycle import complete, hand_back
from tests.support.runs import make_run
from tests.support.waiting import until


class Executor:
    """Waits until it may go on."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def execute(self, run: Any, supervision: Any) -> Any:
        await self.go.wait()
        return complete(run, b"1")


def bench_worker(bench: tuple[Slots, Endings, Executor, list[Event]]) -> Worker:
    slots, endings, executor, seen = bench
    events = Events()
    events.subscribe(seen.append)
    return Worker(slots=slots, executor=executor, endings=endings, events=events)  # type: ignore[arg-type]


@pytest.fixture
async def bench() -> AsyncIterator[tuple[Slots, Endings, Executor, list[Event]]]:
    slots, seen = Slots(2, Wake()), list[Event]()
    endings, executor = Endings(slots), Executor()
    task = asyncio.create_task(bench_worker((slots, endings, executor, seen)).work())
    yield slots, endings, executor, seen
    slots.inbox.put_nowait(None)
    await asyncio.wait_for(task, 1)  # the end of the inbox is the end of the worker


async def test_from_the_inbox_to_the_endings(bench: tuple[Slots, Endings, Executor, list[Event]]) -> None:
    slots, endings, executor, seen = bench
    run = make_run()
    slots.fill(slots.reserve(1), [run])

    async def started() -> bool:
        return RunStarted(run) in seen

    await until(started, seconds=1)
    assert len(endings.waiting) == 0
    executor.go.set()

    async def waiting() -> int:
        return len(endings.waiting)

    await until(waiting, lambda n: n == 1, seconds=1)
    assert endings.waiting[0].change == complete(run, b"1")
    assert endings.waiting[0].seconds >= 0
    supervision = slots.runs[(run.id, run.run_epoch)]
    assert supervision.ended
    assert slots.free == 1, "its slot is free only when Postgres has answered"


async def test_of_jobs_that_lost_two_processes_one_runs_at_a_time(
    bench: tuple[Slots, Endings, Executor, list[Event]],
) -> None:
    """Innocent neighbours of a poison must not be near it when it kills the third process."""
    slots, endings, executor, seen = bench
    first, second = (make_run(id=UUID(int=n), rescues=2) for n in (1, 2))
    other = asyncio.create_task(bench_worker(bench).work())
    slots.fill(slots.reserve(2), [first, second])

    async def waiting() -> int:
        return len(endings.waiting)

    await until(waiting, lambda n: n == 1, seconds=1)
    assert endings.waiting.popleft().change == hand_back(second)
    await asyncio.sleep(0.05)
    assert seen == [], "not before Postgres knows that the other is not here"
    slots.release([second])

    async def started() -> bool:
        return seen == [RunStarted(first)]

    await until(started, seconds=1)
    executor.go.set()
    await until(waiting, lambda n: n == 1, seconds=1)
    slots.inbox.put_nowait(None)
    slots.inbox.put_nowait(None)
    await asyncio.wait_for(other, 1)


async def test_a_run_that_was_given_up_on_meanwhile_gives_its_slot_back(
    bench: tuple[Slots, Endings, Executor, list[Event]],
) -> None:
    slots, endings, executor, _ = bench
    run = make_run()
    slots.fill(slots.reserve(1), [run])
    (supervision,) = slots.runs.values()
    supervision.abandoned = True
    slots.write_off(supervision)
    slots.release([run])
    assert slots.free == 1
    executor.go.set()

    async def free() -> int:
        return slots.free

    await until(free, lambda n: n == 2, seconds=1)
    assert len(endings.waiting) == 0
