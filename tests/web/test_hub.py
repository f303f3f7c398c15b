"""Who waits hears of a change, at once from this process, soon from others, and at the end of the process."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from jobflow.lifecycle import FINAL, NewJob
from jobflow.store import Store
from jobflow.web import hub as module
from jobflow.web.hub import Hub, Watch
from tests.support.rows import new_job


async def insert(store: Store, count: int = 1) -> list[NewJob]:
    jobs = [new_job() for _ in range(count)]
    await store.add_queues(["default"])
    await store.insert_jobs(jobs)
    return jobs


async def test_a_watch_collects_what_changed_since_the_last_look() -> None:
    watch = Watch()
    watch.tell(["jobs"])
    watch.tell(["queues", "jobs"])
    assert await watch.wait(1) == {"jobs", "queues"}
    assert await watch.wait(0.01) == set()


async def test_streams_are_told_and_forgotten_when_they_end(store: Store) -> None:
    hub = Hub(store, hears=lambda: True)
    with hub.watching() as watch:
        hub.told(["workers"], True)
        assert await watch.wait(1) == {"workers"}
    hub.told(["jobs"], True)
    assert await watch.wait(0.01) == set()


async def test_hints_go_out_in_rounds_one_stream_after_the_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 1_000.0)
    hub = Hub(store, hears=lambda: True)
    numbers: dict[Watch, int] = {}
    happened: list[float] = []  # the number of a stream that was told, or how long was paused
    monkeypatch.setattr(Watch, "tell", lambda watch, topics: happened.append(numbers[watch]))

    async def pause(seconds: float) -> None:
        happened.append(seconds)
        hub.told(["jobs"], True)  # a drain: something changes all the time
        if hub.round == 3:
            hub.close()
        await asyncio.sleep(0)

    hub.pause = pause  # type: ignore[method-assign]
    with ExitStack() as stack:
        numbers |= {stack.enter_context(hub.watching()): n for n in range(10)}
        hub.told(["jobs"], True)
        assert hub._telling
        await hub._telling
    for one in (happened[:21], happened[21:42]):  # each stream once, a step between two, and then the rest of the time
        assert one[0:20:2] == list(range(10))
        assert one[1:20:2] == [module.STEP] * 10
        assert 900 < one[20] <= 1_000


async def test_the_first_hint_goes_out_at_once_and_the_last_is_not_lost(store: Store) -> None:
    hub = Hub(store, hears=lambda: True)
    gate = asyncio.Event()

    async def pause(seconds: float) -> None:
        await gate.wait()

    hub.pause = pause  # type: ignore[method-assign]
    with hub.watching() as watch:
        hub.told(["jobs"], True)
        assert await watch.wait(20) == {"jobs"}
        assert hub.round == 1
        hub.told(["queues"], True)
        hub.told(["jobs"], True)
        assert await watch.wait(0.05) == set()  # the round is not over
        gate.set()
        assert await watch.wait(20) == {"jobs", "queues"}
        assert hub.round == 2


async def test_a_busy_loop_rests_twice_as_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.2)
    hub = Hub(store, hears=lambda: True)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    hub.pause = pause  # type: ignore[method-assign]
    for work, rests in ((lambda: 0.0, 1), (iter([0.0, 0.1]).__next__, 1), (iter([0.0, 0.15]).__next__, 2)):
        hub._work = work
        pauses.clear()
        hub.told(["jobs"], True)
        assert hub._telling
        await hub._telling
        assert len(pauses) == rests


async def test_more_streams_than_steps_are_told_within_a_round(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 4)
    hub = Hub(store, hears=lambda: True)
    with ExitStack() as stack:
        watches = [stack.enter_context(hub.watching()) for _ in range(11)]
        hub.told(["jobs"], True)
        assert [await watch.wait(20) for watch in watches] == [{"jobs"}] * 11
        assert hub.round == 1


async def test_a_waiting_request_hears_of_a_move_in_this_process_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 100.0)
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: True)
    waiting = asyncio.create_task(hub.changed(job.id, 100, lambda now: now.status in FINAL))
    await asyncio.sleep(0)
    await store.cancel_jobs([job.id], "no more")
    hub.moved([job.id])
    async with asyncio.timeout(20):
        assert (await waiting).status == "cancelled"


async def test_another_process_is_heard_by_one_question_for_all(store: Store) -> None:
    first, second = await insert(store, 2)
    hub = Hub(store, hears=lambda: True)
    with hub.watching(first.id) as one, hub.watching(second.id) as two:
        await store.cancel_jobs([first.id], "no more")
        hub.told(["jobs"], False)
        assert await one.wait(5) == {"job"}
        await two.wait(0.05)  # the first look at it may count as a change
        hub.told(["jobs"], False)
        assert await two.wait(0.3) == set()


async def test_the_end_of_the_process_ends_all_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 100.0)
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: True)
    waiting = asyncio.create_task(hub.changed(job.id, 100, lambda now: False))
    pausing = asyncio.create_task(hub.pause(100))
    await asyncio.sleep(0.05)
    hub.close()
    async with asyncio.timeout(20):
        assert (await waiting).status == "pending"
        await pausing


async def test_it_looks_by_itself_when_nobody_can_be_heard(store: Store) -> None:
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: False)
    waiting = asyncio.create_task(hub.changed(job.id, 100, lambda now: now.status in FINAL))
    await asyncio.sleep(0)
    await store.cancel_jobs([job.id], "no more")
    async with asyncio.timeout(20):
        assert (await waiting).status == "cancelled"
