"""What really is in Redis about the lanes of a queue."""

from __future__ import annotations

from collections.abc import Iterable

from jobflow.broker import MICROSECOND, POSTGRES_EPOCH, PRIORITIES, RECORD, Broker, Entry, states_key


async def states_of(broker: Broker, queue: str) -> dict[int, str]:
    """How far each lane reaches: '' for a cold one, '+' for an open one, else its last row."""
    found = await broker._redis.hgetall(states_key(queue))
    return {priority: found.get(b"%d" % priority, b"").decode() for priority in PRIORITIES}


def packed(entries: Iterable[Entry]) -> bytes:
    """A page of a lane as Postgres packs it."""
    return b"".join(RECORD.pack((run_at - POSTGRES_EPOCH) // MICROSECOND, id.bytes) for _, run_at, id in entries)
