"""Hints: coalesced, told here at once and to the others over Redis, never twice."""

from __future__ import annotations

from collections.abc import Iterable

from jobflow.broker import Broker
from jobflow.engine.health import Health
from jobflow.engine.hints import ROUND, Hints
from jobflow.events import CANCEL_REQUESTED, Events, JobMoved, ServerAway
from jobflow.lifecycle import Status
from tests.support.rows import new_job

Told = list[tuple[list[str], bool]]


def listen(broker: Broker, events: Events) -> tuple[Hints, Told]:
    hints, told = Hints(broker=broker, health=Health(events), events=events), []

    def note(topics: Iterable[str], own: bool) -> None:
        told.append((list(topics), own))

    hints.told = note
    return hints, told


async def test_many_events_are_one_hint(broker: Broker) -> None:
    events = Events()
    hints, told = listen(broker, events)
    moved = JobMoved(new_job().id, "cancelled", Status.PENDING, Status.CANCELLED)
    for _ in range(100):
        events.emit(moved)
    assert await hints.tick() == ROUND
    assert told == [(["jobs", "queues"], True)]
    await hints.tick()
    assert len(told) == 1


async def test_who_waits_for_a_job_is_told_at_once(broker: Broker) -> None:
    events = Events()
    hints, _ = listen(broker, events)
    moved, job = [], new_job()
    hints.moved = moved.extend
    events.emit(JobMoved(job.id, "cancelled", Status.PENDING, Status.CANCELLED))
    assert moved == [job.id]


async def test_other_processes_hear_it_and_this_one_not_again(broker: Broker) -> None:
    events = Events()
    mine, told_here = listen(broker, events)
    _, told_there = (other := listen(broker, Events()))
    heard = broker.hints()
    assert await anext(heard) == ""  # subscribed
    events.emit(ServerAway("postgres", "gone"))
    await mine.tick()
    text = await anext(heard)
    while text is None:
        text = await anext(heard)
    mine.hear(text)
    other[0].hear(text)
    await heard.aclose()  # type: ignore[attr-defined]
    assert told_here == [(["workers"], True)]
    assert told_there == [(["workers"], False)]


async def test_a_run_that_is_asked_to_stop_is_told_here_at_once_and_to_the_other_processes(broker: Broker) -> None:
    events = Events()
    mine, told_here = listen(broker, events)
    other, told_there = listen(broker, Events())
    stops: list[str] = []
    mine.stop, other.stop = lambda: stops.append("mine"), lambda: stops.append("other")
    heard = broker.hints()
    assert await anext(heard) == ""  # subscribed
    events.emit(JobMoved(new_job().id, CANCEL_REQUESTED, Status.PROCESSING, Status.PROCESSING))
    assert stops == ["mine"]
    await mine.tick()
    while not (text := await anext(heard)):
        pass
    mine.hear(text)
    assert stops == ["mine"]
    other.hear(text)
    assert stops == ["mine", "other"]
    await heard.aclose()  # type: ignore[attr-defined]
    assert told_here == [(["jobs", "queues"], True)], "people who watch need not know"
    assert told_there == [(["jobs", "queues"], False)]


async def test_after_a_silence_everything_may_have_changed(broker: Broker) -> None:
    hints, told = listen(broker, Events())
    hints.resume()
    assert told == [(["jobs", "queues", "workers"], False)]


async def test_without_redis_hints_still_reach_this_process() -> None:
    broker = Broker("redis://127.0.0.1:1/0", lane_size=100, pool_size=2)
    events = Events()
    hints, told = listen(broker, events)
    events.emit(ServerAway("postgres", "gone"))
    await hints.tick()
    assert told[0] == (["workers"], True)
    await broker.close()
