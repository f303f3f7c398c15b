"""Who waits hears of a change, at once from this process, soon from others, and at the end of the process."""

from __future__ import annotations

import asyncio
import time

from jobflow.lifecycle import FINAL, NewJob
from jobflow.store import Store
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


async def test_a_waiting_request_hears_of_a_move_in_this_process_at_once(store: Store) -> None:
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: True)
    waiting = asyncio.create_task(hub.changed(job.id, 20, lambda now: now.status in FINAL))
    await asyncio.sleep(0)
    await store.cancel_jobs([job.id], "no more")
    hub.moved(job.id)
    began = time.monotonic()
    assert (await waiting).status == "cancelled"
    assert time.monotonic() - began < 1


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


async def test_the_end_of_the_process_ends_all_waits(store: Store) -> None:
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: True)
    waiting = asyncio.create_task(hub.changed(job.id, 30, lambda now: False))
    pausing = asyncio.create_task(hub.pause(30))
    await asyncio.sleep(0.05)
    hub.close()
    async with asyncio.timeout(2):
        assert (await waiting).status == "pending"
        await pausing


async def test_it_looks_by_itself_when_nobody_can_be_heard(store: Store) -> None:
    [job] = await insert(store)
    hub = Hub(store, hears=lambda: False)
    waiting = asyncio.create_task(hub.changed(job.id, 20, lambda now: now.status in FINAL))
    await asyncio.sleep(0)
    await store.cancel_jobs([job.id], "no more")
    async with asyncio.timeout(5):
        assert (await waiting).status == "cancelled"
