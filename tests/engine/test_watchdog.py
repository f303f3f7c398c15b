"""Timeouts are kept to a twentieth of a second, and a handler that does not end is given up on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median

import httpx
import pytest
from litestar import Litestar

from jobflow import job
from jobflow.engine import watchdog as module
from jobflow.engine.completer import Endings
from jobflow.engine.executor import Supervision
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.engine.watchdog import ROUND, STUCK, Watchdog
from jobflow.events import Event, Events, RunEnded, RunStuck
from tests.support.runs import make_run
from tests.support.waiting import final, until

RUN = make_run()


class Bench:
    def __init__(self) -> None:
        self.slots = Slots(5, Wake())
        self.endings = Endings(self.slots)
        self.lease = Lease(10.0)
        self.lease.answered = boottime()
        self.lags: list[float] = []
        self.seen: list[Event] = []
        self.hopeless: list[bool] = []
        events = Events()
        events.subscribe(self.seen.extend)
        self.watchdog = Watchdog(
            slots=self.slots, endings=self.endings, lease=self.lease, events=events, outage=100.0, lag=self.lags.append,
            hopeless=lambda: self.hopeless.append(True),
        )  # fmt: skip

    def start(self) -> Supervision:
        self.slots.fill(self.slots.reserve(1), [RUN])
        return self.slots.runs[(RUN.id, RUN.run_epoch)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_run_is_stopped_when_its_time_is_up_and_not_before(bench: Bench) -> None:
    run = bench.start()
    assert await bench.watchdog.tick() == ROUND
    assert run.cause is None
    run.deadline = time.monotonic() + 60
    await bench.watchdog.tick()
    assert run.cause is None
    run.deadline = time.monotonic() - 0.001
    await bench.watchdog.tick()
    assert run.cause == "timeout"


async def test_a_run_that_has_ended_and_waits_to_be_written_is_left_alone(bench: Bench) -> None:
    run = bench.start()
    run.deadline, run.ended = 0.0, True
    await bench.watchdog.tick()
    assert run.cause is None
    run.cause, run.stopped = "timeout", 0.0
    await bench.watchdog.tick()
    assert not run.abandoned


async def test_runs_go_on_through_an_outage_but_not_for_ever(bench: Bench) -> None:
    run = bench.start()
    bench.lease.answered = boottime() - 10 - 99
    await bench.watchdog.tick()
    assert run.cause is None
    bench.lease.answered = boottime() - 10 - 101
    await bench.watchdog.tick()
    assert run.cause == "lost"


async def test_a_handler_that_does_not_end_is_written_off_until_it_does(bench: Bench) -> None:
    run = bench.start()
    run.stop("timeout")
    await bench.watchdog.tick()
    assert not run.abandoned
    run.stopped = time.monotonic() - STUCK - 0.1
    for _ in range(3):
        await bench.watchdog.tick()
    assert run.abandoned
    assert run.ended
    assert bench.seen == [RunStuck(RUN)]
    (ending,) = bench.endings.take()
    assert ending.change.failure is not None
    assert (ending.change.failure.type, ending.change.after) == ("Stuck", "failed")
    bench.slots.release([RUN])
    assert bench.slots.free == 4, "its slot is gone"
    bench.endings.offer(ending.change, run)  # the handler has ended after all
    assert bench.slots.free == 5
    assert bench.endings.take() == [], "nobody wants to know any more"


async def test_a_process_without_slots_gives_up(bench: Bench) -> None:
    bench.slots.total = 2
    for n in range(2):
        assert not bench.hopeless
        bench.slots.fill(bench.slots.reserve(1), [make_run(run_epoch=n)])
        bench.slots.runs[(RUN.id, n)].stop("cancel")
        bench.slots.runs[(RUN.id, n)].stopped = time.monotonic() - STUCK - 0.1
        await bench.watchdog.tick()
        bench.slots.release([make_run(run_epoch=n)])
    assert bench.hopeless == [True]


async def test_it_tells_how_late_the_loop_is_and_that_it_moves(bench: Bench) -> None:
    bench.lease.moved = 0.0
    await bench.watchdog.tick()
    assert bench.lease.moved == pytest.approx(boottime(), abs=30)
    bench.watchdog._expected -= 300.0
    await bench.watchdog.tick()
    assert 300 - ROUND <= bench.lags[-1] < 400
    await bench.watchdog.tick()
    assert bench.lags[-1] < 100, "only the last round counts, and it was in time"


# --- in the running application ---

release: Callable[[], None] = lambda: None  # noqa: E731


@job("test.stubborn", max_attempts=1, timeout=0.2)
async def stubborn(payload: dict) -> None:
    global release
    end = asyncio.Event()
    release = end.set
    while not end.is_set():
        try:
            await end.wait()
        except asyncio.CancelledError:
            continue


async def test_a_timeout_is_precise(app: Litestar, http: httpx.AsyncClient) -> None:
    seconds: dict[str, float] = {}

    def note(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, RunEnded):
                seconds[str(event.change.run.id)] = event.seconds

    app.parts.events.subscribe(note)  # type: ignore[attr-defined]
    ids = []
    for _ in range(6):  # at different moments of a round
        ids.append((await http.post("/jobs", json={"type": "hang"})).json()["id"])
        await asyncio.sleep(0.1)
    for id in ids:
        found = await final(http, id)
        assert found["error"]["type"] == "Timeout"

    async def told() -> int:
        return len(seconds)  # an ending is told after it was written

    await until(told, lambda n: n == len(ids))
    assert min(seconds.values()) >= 0.3
    # What a busy machine adds is not ours: that a round is short enough is all that can be told for certain.
    assert ROUND <= 0.05
    assert median(seconds.values()) < 1


async def test_a_stuck_handler_is_given_up_on_and_its_slot_comes_back_when_it_ends(
    app: Litestar, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK", 0.3)
    slots = app.parts.engine._slots  # type: ignore[attr-defined]
    id = (await http.post("/jobs", json={"type": "test.stubborn"})).json()["id"]
    found = await final(http, id)
    assert (found["status"], found["error"]["type"]) == ("dead_letter", "Stuck")

    async def free() -> int:
        return int(slots.free)

    await until(free, lambda n: n == 9)
    assert (await final(http, (await http.post("/jobs", json={"type": "noop"})).json()["id"]))["status"] == "completed"
    await until(free, lambda n: n == 9)  # a fetcher may have set some aside
    release()
    await until(free, lambda n: n == 10)
    again = (await http.get(f"/jobs/{id}")).json()
    assert again["status"] == "dead_letter"
