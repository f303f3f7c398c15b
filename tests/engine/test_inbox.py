"""Runs are taken in order, nobody sleeps while there are some, and the loop is given back."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobflow.engine import inbox as module
from jobflow.engine.executor import Supervision
from jobflow.engine.inbox import Inbox
from tests.support.runs import make_run
from tests.support.waiting import until


class Workers:
    def __init__(self, inbox: Inbox, count: int, seconds: float = 0.0) -> None:
        self.inbox, self.seconds = inbox, seconds
        self.taken: list[tuple[int, Supervision]] = []
        self.tasks = [asyncio.create_task(self._work(n)) for n in range(count)]

    async def _work(self, n: int) -> None:
        while (supervision := await self.inbox.take()) is not None:
            self.taken.append((n, supervision))
            if self.seconds:
                await asyncio.sleep(self.seconds)


def put(inbox: Inbox, count: int) -> list[Supervision]:
    supervisions = [Supervision(make_run(run_epoch=n)) for n in range(count)]
    for supervision in supervisions:
        inbox.put(supervision)
    return supervisions


async def test_handlers_that_do_not_wait_share_a_worker_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 10.0)
    inbox = Inbox()
    workers = Workers(inbox, 10)
    await asyncio.sleep(0)
    supervisions = put(inbox, 100)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [supervision for _, supervision in workers.taken] == supervisions
    assert len({n for n, _ in workers.taken}) == 1
    inbox.close()
    await asyncio.wait_for(asyncio.gather(*workers.tasks), 5)


async def test_one_that_waits_does_not_hold_up_the_others() -> None:
    inbox = Inbox()
    workers = Workers(inbox, 50, seconds=60.0)
    await asyncio.sleep(0)
    put(inbox, 50)

    async def taken() -> int:
        return len(workers.taken)

    await until(taken, lambda n: n == 50)
    for task in workers.tasks:
        task.cancel()
    await asyncio.wait(workers.tasks)


async def test_the_loop_is_given_back_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 0.01)
    inbox = Inbox()

    async def busy() -> None:
        while await inbox.take() is not None:
            time.sleep(0.002)  # noqa: ASYNC251  (a handler that computes)

    tasks = [asyncio.create_task(busy()) for _ in range(20)]
    await asyncio.sleep(0)
    put(inbox, 100)
    inbox.close()
    rounds = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rounds += 1
    assert rounds >= 15, "100 times 2 ms in slices of 10"


async def test_who_is_cancelled_when_woken_passes_the_turn_on() -> None:
    inbox = Inbox()
    workers = Workers(inbox, 2)
    await asyncio.sleep(0)
    put(inbox, 1)
    workers.tasks[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [n for n, _ in workers.taken] == [1]
    workers.tasks[1].cancel()
    await asyncio.wait(workers.tasks)
    put(inbox, 1)
    last = Workers(inbox, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(last.taken) == 1, "those that are gone are not waited for"
    inbox.close()
    await asyncio.wait_for(asyncio.gather(*last.tasks), 5)


async def test_cleared_and_closed_it_hands_out_nothing() -> None:
    inbox = Inbox()
    supervisions = put(inbox, 3)
    assert len(inbox) == 3
    assert inbox.clear() == supervisions
    inbox.close()
    assert await inbox.take() is None
