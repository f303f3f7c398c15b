"""Takes a run, executes it, hands its ending over."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import UUID

import anyio
import pytest

from jobflow.engine.completer import Endings
from jobflow.engine.executor import Supervision
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.engine.worker import Worker
from jobflow.lifecycle import Failure, Run, complete, fail, hand_back
from tests.support.runs import make_run
from tests.support.waiting import until

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="clean")


Bench: TypeAlias = "tuple[Slots, Endings, Executor]"


class Executor:
    """Waits until it may go on, then does what the test wants of a handler."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.runs: list[Run] = []
        self.handler: Callable[[Supervision], Awaitable[Any]] | None = None

    async def execute(self, run: Any, supervision: Any) -> Any:
        self.runs.append(run)
        await self.go.wait()
        if self.handler is not None:
            await self.handler(supervision)
        return complete(run, b"1")

    def explain(self, supervision: Supervision, error: BaseException) -> Any:
        return fail(supervision.run, Failure(type(error).__name__, ""), 1.0)


def bench_worker(bench: Bench) -> Worker:
    slots, endings, executor = bench
    worker = Worker("w", slots=slots, executor=executor, endings=endings)  # type: ignore[arg-type]
    worker.start()
    return worker


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    slots = Slots(2, Wake())
    endings, executor = Endings(slots), Executor()
    worker = bench_worker((slots, endings, executor))
    yield slots, endings, executor
    slots.inbox.close()
    await asyncio.wait_for(worker.task, 10)  # the end of the inbox is the end of the worker


async def test_from_the_inbox_to_the_endings(bench: Bench) -> None:
    slots, endings, executor = bench
    run = make_run()
    slots.fill(slots.reserve(1), [run])

    async def started() -> bool:
        return executor.runs == [run]

    await until(started)
    assert len(endings.waiting) == 0
    executor.go.set()

    async def waiting() -> int:
        return len(endings.waiting)

    await until(waiting, lambda n: n == 1)
    assert endings.waiting[0].change == complete(run, b"1")
    assert endings.waiting[0].seconds >= 0
    supervision = slots.runs[(run.id, run.run_epoch)]
    assert supervision.ended
    assert slots.free == 1, "its slot is free only when Postgres has answered"


async def test_of_jobs_that_lost_two_processes_one_runs_at_a_time(
    bench: Bench,
) -> None:
    """Innocent neighbours of a poison must not be near it when it kills the third process."""
    slots, endings, executor = bench
    first, second = (make_run(id=UUID(int=n), rescues=2) for n in (1, 2))
    other = bench_worker(bench)
    slots.fill(slots.reserve(2), [first, second])

    async def waiting() -> int:
        return len(endings.waiting)

    await until(waiting, lambda n: n == 1)
    assert endings.waiting.popleft().change == hand_back(second)
    await asyncio.sleep(0.05)
    assert executor.runs == [], "not before Postgres knows that the other is not here"
    slots.release([second])

    async def started() -> bool:
        return executor.runs == [first]

    await until(started)
    executor.go.set()
    await until(waiting, lambda n: n == 1)
    slots.inbox.close()
    await asyncio.wait_for(other.task, 10)


async def test_a_run_that_was_given_up_on_meanwhile_gives_its_slot_back(
    bench: Bench,
) -> None:
    slots, endings, executor = bench
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

    await until(free, lambda n: n == 2)
    assert len(endings.waiting) == 0


async def tasks_of(bench: Bench, spoil: Callable[[Supervision], Any]) -> list[Any]:
    """What is seen by three handlers, one after the other, of which the second does ``spoil``."""
    slots, endings, executor = bench
    seen: list[Any] = []

    async def handler(supervision: Supervision) -> None:
        await asyncio.sleep(0)  # what is left of a cancellation would strike here
        seen.append((asyncio.current_task(), VARIABLE.get()))
        if len(seen) == 2:
            with suppress(asyncio.CancelledError):
                await spoil(supervision)

    executor.handler = handler
    executor.go.set()
    for n in range(3):
        slots.fill(slots.reserve(1), [make_run(run_epoch=n)])

        async def done(n: int = n) -> bool:
            return len(endings.waiting) == n + 1

        await until(done)
    (first, *_), (second, *_), (third, variable) = seen
    assert first is second, "a task for each would be expensive"
    assert variable == "clean"
    return [second, third]


async def test_handlers_share_a_task(bench: Bench) -> None:
    second, third = await tasks_of(bench, lambda supervision: asyncio.sleep(0))
    assert second is third


async def test_what_a_handler_sets_does_not_meet_the_next(bench: Bench) -> None:
    async def spoil(supervision: Supervision) -> None:
        VARIABLE.set("spoilt")

    second, third = await tasks_of(bench, spoil)
    assert second is not third


async def test_a_handler_that_was_stopped_leaves_no_cancellation_behind(
    bench: Bench,
) -> None:
    async def spoil(supervision: Supervision) -> None:
        supervision.task = asyncio.current_task()
        supervision.stop("timeout")  # and then it does not wait any more: the cancellation is still to come

    second, third = await tasks_of(bench, spoil)
    assert second is not third


async def test_a_handler_that_cancels_its_own_task_harms_nobody_else(
    bench: Bench,
) -> None:
    async def spoil(supervision: Supervision) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    second, third = await tasks_of(bench, spoil)
    assert second is not third


async def test_a_generator_exit_out_of_something_awaited_is_a_failure_like_any_other(
    bench: Bench,
) -> None:
    _, endings, _ = bench

    async def spoil(supervision: Supervision) -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failed.set_exception, GeneratorExit())
        await failed

    await tasks_of(bench, spoil)
    assert [e.change.failure and e.change.failure.type for e in endings.waiting] == [None, "GeneratorExit", None]


async def test_a_handlers_own_timeouts_and_task_groups_end_with_it(
    bench: Bench,
) -> None:
    async def spoil(supervision: Supervision) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                group.create_task(failing())
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()

    async def failing() -> None:
        raise ValueError

    await tasks_of(bench, spoil)  # the third one is not struck by anything
