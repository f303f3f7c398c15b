"""What really is in Redis about the lanes of a queue."""

from __future__ import annotations

from jobflow.broker import PRIORITIES, Broker, states_key


async def states_of(broker: Broker, queue: str) -> dict[int, str]:
    """How far each lane reaches: '' for a cold one, '+' for an open one, else its last row."""
    found = await broker._redis.hgetall(states_key(queue))
    return {priority: found.get(b"%d" % priority, b"").decode() for priority in PRIORITIES}
