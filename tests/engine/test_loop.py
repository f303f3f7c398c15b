"""A wake-up is neither lost nor given twice, and no error ends a loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobflow.engine.loop import BACKOFF_MAX, Pulse, Stop, Wake, run_forever
from jobflow.errors import StoreUnavailable
from jobflow.events import Event, Events, LoopFailed


async def test_a_wake_up_wakes_one_waiter_at_a_time() -> None:
    wake = Wake()
    woken: list[int] = []

    async def waiter(n: int) -> None:
        await wake.wait(10)
        woken.append(n)

    tasks = [asyncio.create_task(waiter(n)) for n in range(3)]
    await asyncio.sleep(0)
    for expected in ([0], [0, 1], [0, 1, 2]):
        wake.set()
        await asyncio.sleep(0.01)
        assert woken == expected
    await asyncio.gather(*tasks)


async def test_a_wake_up_nobody_waits_for_is_remembered_once() -> None:
    wake = Wake()
    wake.set()
    wake.set()
    began = time.monotonic()
    await wake.wait(10)
    assert time.monotonic() - began < 5
    await wake.wait(0.05)
    assert time.monotonic() - began >= 0.05


async def test_a_waiter_whose_time_is_up_or_who_was_cancelled_takes_no_wake_up_away() -> None:
    wake = Wake()
    await wake.wait(0.01)
    task = asyncio.create_task(wake.wait(10))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    wake.set()
    began = time.monotonic()
    await wake.wait(10)
    assert time.monotonic() - began < 5


async def test_it_is_known_whether_somebody_waits() -> None:
    wake = Wake()
    assert not wake.awaited
    first, second = (asyncio.create_task(wake.wait(10)) for _ in range(2))
    await asyncio.sleep(0)
    wake.set()
    assert wake.awaited, "the other one"
    wake.set()
    assert not wake.awaited, "both are on their way"
    await asyncio.gather(first, second)
    await wake.wait(0.001)
    assert not wake.awaited, "its time was up"
    task = asyncio.create_task(wake.wait(10))
    await asyncio.sleep(0)
    assert wake.awaited
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not wake.awaited


async def test_waiting_again_and_again_keeps_nothing() -> None:
    """A loop that nobody ever wakes waits twenty times a second for years."""
    wake = Wake()
    for _ in range(20):
        await wake.wait(0.001)
    assert len(wake._waiters) == 0


async def test_no_time_to_wait_lets_others_run() -> None:
    wake, ran = Wake(), []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await wake.wait(0)
    assert ran == [1]


class Script:
    """Ticks as told: an exception is raised, a number returned, ``stop`` asked for in the end."""

    name = "script"

    def __init__(self, stop: Stop, *steps: float | BaseException) -> None:
        self.wake = Wake()
        self._stop, self._steps = stop, list(steps)
        self.times: list[float] = []

    async def tick(self) -> float:
        self.times.append(time.monotonic())
        step = self._steps.pop(0)
        if not self._steps:
            self._stop.asked = True
        if isinstance(step, BaseException):
            raise step
        return step


class Asked(Wake):
    """Nobody waits; for how long somebody would have is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
def events(seen: list[Event]) -> Events:
    events = Events()
    events.subscribe(seen.extend)
    return events


async def test_a_loop_survives_every_exception_and_backs_off(events: Events, seen: list[Event]) -> None:
    stop = Stop()
    error = ZeroDivisionError()
    part = Script(stop, error, KeyError("x"), error, 0, error, 0)
    part.wake = asked = Asked()
    await run_forever(part, stop, Pulse(), events)
    assert next(e.error for e in seen if isinstance(e, LoopFailed)) is error
    assert len([e for e in seen if isinstance(e, LoopFailed)]) == 4
    for wait, usual in zip(asked.seconds, (0.2, 0.4, 0.8, 0, 0.2), strict=True):  # a success ends the backing off
        assert usual * 0.5 <= wait <= usual * 1.5


async def test_a_server_that_is_away_is_no_failure_of_the_loop(events: Events, seen: list[Event]) -> None:
    stop = Stop()
    await run_forever(Script(stop, StoreUnavailable("away"), 0), stop, Pulse(), events)
    assert seen == []


def test_the_backing_off_has_an_end() -> None:
    assert BACKOFF_MAX <= 2.0


async def test_a_cancelled_loop_ends(events: Events) -> None:
    stop = Stop()
    task = asyncio.create_task(run_forever(Script(stop, 60, 0), stop, Pulse(), events))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wake_up_cuts_the_wait_short(events: Events) -> None:
    stop = Stop()
    part = Script(stop, 60, 0)
    task = asyncio.create_task(run_forever(part, stop, Pulse(), events))
    await asyncio.sleep(0.01)
    assert len(part.times) == 1
    part.wake.set()
    await asyncio.wait_for(task, 5)
    assert len(part.times) == 2


async def test_the_pulse_tells_how_late_the_slowest_loop_is(events: Events) -> None:
    pulse = Pulse()
    assert pulse.overdue() == 0
    pulse.beat("quick", 10)
    assert pulse.overdue() < 0
    pulse.beat("slow", -3)
    assert 3 <= pulse.overdue() < 30
    pulse.forget("slow")
    assert pulse.overdue() < 0
    stop = Stop()
    task = asyncio.create_task(run_forever(Script(stop, 50, 0), stop, pulse, events))

    await asyncio.sleep(0.01)
    pulse.forget("quick")
    assert -50 <= pulse.overdue() < -20
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
