"""Who is looked at next, and how long nobody needs to look."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from jobflow.engine.agenda import POLL, Agenda

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def rest(agenda: Agenda, now: datetime = NOW) -> list[str]:
    queues = []
    while (queue := agenda.next(now)) is not None:
        queues.append(queue)
    return queues


def test_queues_are_served_in_turn_and_each_once() -> None:
    agenda = Agenda()
    agenda.know({"a": False, "b": False, "c": False})
    assert agenda.next(NOW) == "a"
    agenda.again("a")
    assert rest(agenda) == ["b", "c", "a"]
    assert agenda.next(NOW) is None
    agenda.notice("b")
    agenda.notice("b")
    assert rest(agenda) == ["b"]
    agenda.notice_all()
    assert rest(agenda) == ["a", "b", "c"]


def test_a_paused_or_unknown_queue_is_passed_over() -> None:
    agenda = Agenda()
    agenda.know({"a": True, "b": False})
    assert rest(agenda) == ["b"]
    agenda.know({"a": False, "b": False})
    assert rest(agenda) == ["a"], "it is not paused any more, and of b there is no news"
    agenda.notice("new")  # its first job was enqueued here
    assert rest(agenda) == ["new"]
    assert agenda.queues == ["a", "b", "new"]


def test_every_queue_is_polled_now_and_then() -> None:
    agenda = Agenda()
    agenda.know({"a": False, "b": False})
    assert rest(agenda) == ["a", "b"]
    assert rest(agenda, NOW + 0.99 * POLL * SECOND) == []
    assert rest(agenda, NOW + POLL * SECOND) == ["a", "b"]
    assert rest(agenda, NOW + 1.99 * POLL * SECOND) == []


def test_a_queue_comes_up_when_its_next_job_falls_due() -> None:
    agenda = Agenda()
    agenda.know({"a": False, "b": False})
    rest(agenda)
    agenda.due("a", NOW + 0.3 * SECOND)
    assert agenda.next(NOW + 0.2 * SECOND) is None
    assert rest(agenda, NOW + 0.3 * SECOND) == ["a"]
    assert rest(agenda, NOW + 0.4 * SECOND) == []
    agenda.due("b", NOW)
    agenda.due("b", None)
    assert rest(agenda) == []


def test_a_new_job_has_to_wait_while_others_of_its_queue_may_be_due_and_where_nothing_runs() -> None:
    agenda = Agenda()
    assert agenda.holds("a"), "nobody knows it: it may be paused"
    agenda.know({"a": False, "b": True})
    assert agenda.holds("a"), "nobody has looked yet"
    assert agenda.holds("b"), "it is paused"
    rest(agenda)
    assert not agenda.holds("a")
    assert agenda.holds("b")
    agenda.due("a", NOW + 0.3 * SECOND)
    assert not agenda.holds("a"), "what is due later is not before it"
    for tell in (Agenda.notice, Agenda.again):
        tell(agenda, "a")
        assert agenda.holds("a")
        rest(agenda)
        assert not agenda.holds("a")
    agenda.know({"b": False})
    assert agenda.holds("a"), "it is gone"
    rest(agenda)
    assert not agenda.holds("b")


def test_the_wait_ends_when_something_falls_due_and_at_the_latest_after_a_poll() -> None:
    agenda = Agenda()
    agenda.know({"a": False, "b": False})
    rest(agenda)
    assert agenda.wait(NOW) == POLL
    agenda.due("a", NOW + 0.3 * SECOND)
    agenda.due("b", NOW + 60 * SECOND)
    assert abs(agenda.wait(NOW) - 0.3) < 1e-6
    assert 0 < agenda.wait(NOW + 10 * SECOND) < 0.01  # never a busy loop
    agenda.due("a", None)
    assert agenda.wait(NOW) == POLL


def test_what_is_due_in_a_queue_that_is_gone_is_forgotten() -> None:
    agenda = Agenda()
    agenda.know({"a": False})
    rest(agenda)
    agenda.due("a", NOW + 0.1 * SECOND)
    agenda.know({})
    rest(agenda)
    assert agenda.wait(NOW) == POLL


async def test_news_wake_one_fetcher() -> None:
    for tell in (Agenda.notice, Agenda.again):
        agenda = Agenda()
        waiters = [asyncio.create_task(agenda.wake.wait(10)) for _ in range(2)]
        await asyncio.sleep(0)
        tell(agenda, "a")
        await asyncio.sleep(0.01)
        assert [task.done() for task in waiters] == [True, False]
        waiters[1].cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
