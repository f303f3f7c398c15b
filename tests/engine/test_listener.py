"""What other processes push is heard at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jobflow.broker import Broker
from jobflow.engine.listener import Listener
from jobflow.engine.loop import Pulse
from jobflow.errors import BrokerUnavailable
from jobflow.events import ServerAway, ServerBack
from tests.support.parts import Parts
from tests.support.waiting import until


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


def listener_of(parts: Parts, broker: Broker, pulse: Pulse) -> Listener:
    """As the engine makes the one that hears of new jobs."""
    agenda = parts.agenda
    return Listener(
        "listener", broker.wakes, heard=agenda.notice, subscribed=agenda.notice_all, health=parts.health, pulse=pulse
    )


@pytest.fixture
async def listening(parts: Parts, pulse: Pulse) -> AsyncIterator[asyncio.Task[float]]:
    parts.agenda.know({"default": False, "other": False})
    noticed(parts)
    parts.agenda.wake._set = False
    parts.health.broker_failed(OSError("away"))
    task = asyncio.create_task(listener_of(parts, parts.broker, pulse).tick())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def noticed(parts: Parts) -> list[str]:
    queues = []
    parts.agenda._poll_at = parts.lease.now() + timedelta(hours=1)
    while queue := parts.agenda.next(parts.lease.now()):
        queues.append(queue)
    return queues


async def test_once_it_listens_every_queue_is_looked_at(
    parts: Parts, pulse: Pulse, listening: asyncio.Task[float]
) -> None:
    """What was said before is lost."""
    await asyncio.wait_for(parts.agenda.wake.wait(10), 5)
    assert parts.health.broker_up
    assert len(parts.of(ServerBack)) == 1
    assert noticed(parts) == ["default", "other"]
    assert pulse.overdue() < -5, "it is not late while it listens"


async def test_a_push_wakes_a_fetcher(parts: Parts, listening: asyncio.Task[float]) -> None:
    await asyncio.wait_for(parts.agenda.wake.wait(10), 5)
    noticed(parts)
    (id,) = await parts.insert(queue="other")
    parts.agenda.wake._set = False
    noticed(parts)
    await parts.broker.fill("other", 5, "", False, b"")
    waiter = asyncio.create_task(parts.agenda.wake.wait(10))
    await parts.push([id], "other")
    await asyncio.wait_for(waiter, 5)
    assert noticed(parts) == ["other"]


async def test_a_connection_that_breaks_is_told(parts: Parts, listening: asyncio.Task[float]) -> None:
    async def up() -> bool:
        return parts.health.broker_up

    await until(up)
    parts.seen.clear()
    await parts.broker._redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(listening, 10)
    assert [event.server for event in parts.of(ServerAway)] == ["redis"]


async def test_without_redis_it_says_so_and_is_tried_again(parts: Parts, dead_broker: Broker, pulse: Pulse) -> None:
    listener = listener_of(parts, dead_broker, pulse)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(listener.tick(), 10)
    assert len(parts.of(ServerAway)) == 1
