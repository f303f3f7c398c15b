"""Redis: who is next, who is due, who asks too often, who should wake up. One method for each file in lua/.

Nothing here decides anything: deleting any key at any moment delays work and loses none.
"""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from asyncpg.pgproto import pgproto  # its UUID is a uuid.UUID that is made and hashed in C
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from jobflow.errors import BrokerUnavailable
from jobflow.statements import LUA

PRIORITIES = range(10)
WAKE_CHANNEL = "jf:wake"
HINT_CHANNEL = "jf:hint"
SUBSCRIBED = ""  # no queue has this name
TIMEOUT = 3.0  # seconds for any answer
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
RECORD = struct.Struct(">q16s")  # a row of a page: run_at in µs since then, and id
LAST = 2**53 - 1  # the last microsecond that a score holds exactly, and that has the 16 digits the scripts cut by


def lane_key(queue: str, priority: int) -> str:
    return f"{{jf:{queue}}}:r{priority}"


def states_key(queue: str) -> str:
    return f"{{jf:{queue}}}:st"


def window_key(client: str) -> str:
    return f"jf:rl:{client}"


@lru_cache(64)  # jobs of one request are due at one moment
def micros(moment: datetime) -> int:
    """Whole microseconds since 1970, without a float on the way; what is later than the year 2255 counts as LAST."""
    return min((moment - EPOCH) // MICROSECOND, LAST)


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


class Entry(NamedTuple):
    """A job as a lane knows it."""

    priority: int
    run_at: datetime
    id: UUID


class Page:
    """The next rows of a lane, packed by Postgres: most go to Redis as they are."""

    __slots__ = ("_priority", "packed")

    def __init__(self, priority: int, packed: bytes) -> None:
        self._priority, self.packed = priority, packed

    def __len__(self) -> int:
        return len(self.packed) // RECORD.size

    @property
    def tail(self) -> tuple[datetime, UUID]:
        """The last row."""
        us, id = RECORD.unpack_from(self.packed, len(self.packed) - RECORD.size)
        return POSTGRES_EPOCH + us * MICROSECOND, pgproto.UUID(id)

    def entries(self) -> list[Entry]:
        return [
            Entry(self._priority, POSTGRES_EPOCH + us * MICROSECOND, pgproto.UUID(id))
            for us, id in RECORD.iter_unpack(self.packed)
        ]


class Pushed(NamedTuple):
    added: int
    cold: list[int]  # priorities of lanes that have to be filled first
    later: list[UUID]  # known at a later time, of jobs that are not fresh


class Popped(NamedTuple):
    ids: list[UUID]
    fills: dict[int, str]  # priority → state, of lanes that run low
    next_due: datetime | None  # when the next job of the queue falls due, as far as the lanes know


def parse_tail(state: str) -> tuple[datetime, UUID] | None:
    """The last row a spilled lane reaches to; None for a cold or open one."""
    if state in ("", "+"):
        return None
    score, _, hex_id = state.partition(":")
    return moment(int(score)), UUID(hex=hex_id)


def unpack_ids(ids: bytes) -> list[UUID]:
    """Ids that a script returned in one string."""
    return [pgproto.UUID(ids[i : i + 16]) for i in range(0, len(ids), 16)]


class Broker:
    """``lane_size``: ids per lane. All methods raise BrokerUnavailable when Redis is away or refuses to write."""

    def __init__(self, redis_url: str, *, lane_size: int, pool_size: int) -> None:
        self.lane_size = lane_size
        # Never resend: a repeated pop would take other ids. A blocking pool: the ordinary one raises when all are busy.
        self._pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=pool_size,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=30,
        )
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._scripts = {name: self._redis.register_script(text) for name, text in LUA.items()}
        self._keys: dict[str, list[str]] = {}

    async def push(self, queue: str, entries: Iterable[Entry], *, fresh: bool = True) -> Pushed:
        """Make jobs known. ``fresh``: just committed, not read a while ago; only then they replace what is known."""
        jobs = b"".join([b"%d%016d%b" % (priority, micros(run_at), id.bytes) for priority, run_at, id in entries])
        added, later, *cold = await self._run(
            "push", self._lanes(queue), [self.lane_size, WAKE_CHANNEL, queue, int(fresh), jobs]
        )
        return Pushed(added, cold, unpack_ids(later))

    async def fill(self, queue: str, priority: int, seen: str, full: bool, packed: bytes) -> bool:
        """Add a page to a lane. False: the lane is not as it was ``seen``, start again."""
        args = [priority, self.lane_size, seen, int(full), packed]
        return bool(await self._run("fill", [lane_key(queue, priority), states_key(queue)], args))

    async def pop(self, queue: str, now: datetime, want: int) -> Popped:
        ids, fills, next_due = await self._run("pop", self._lanes(queue), [micros(now), want, self.lane_size // 2])
        return Popped(
            unpack_ids(ids),
            {int(fills[i]): fills[i + 1].decode() for i in range(0, len(fills), 2)},
            moment(int(next_due)) if next_due else None,
        )

    async def drop(self, queue: str, jobs: Iterable[tuple[int, UUID]]) -> int:
        args = [part for priority, id in jobs for part in (priority, id.bytes)]
        return int(await self._run("drop", self._lanes(queue)[:10], args))

    async def take(self, client: str, wanted: int, limit: int, window: float) -> tuple[int, int, float]:
        """Let ``wanted`` requests of a client through, at most ``limit`` in any ``window`` seconds.

        Returns (granted, remaining, seconds until the oldest one leaves the window).
        """
        args = [wanted, limit, int(window * 1_000_000), os.urandom(6).hex()]
        granted, remaining, reset = await self._run("take", [window_key(client)], args)
        return int(granted), int(remaining), int(reset) / 1_000_000

    async def hint(self, topics: Iterable[str]) -> None:
        """Tell all processes what has changed."""
        with _translated():
            await self._redis.publish(HINT_CHANNEL, " ".join(topics))

    def wakes(self) -> AsyncIterator[str | None]:
        """Names of queues that got new jobs, from any process."""
        return self._listen(WAKE_CHANNEL)

    def hints(self) -> AsyncIterator[str | None]:
        """What changed in any process: topics, separated by blanks."""
        return self._listen(HINT_CHANNEL)

    async def _listen(self, channel: str) -> AsyncIterator[str | None]:
        """What is published; SUBSCRIBED at first, None after each quiet second. Ends by BrokerUnavailable."""
        with _translated():
            async with self._redis.pubsub() as listener:
                await listener.subscribe(channel)
                while True:
                    message = await listener.get_message(timeout=1.0)
                    if message is None:
                        yield None
                    else:
                        yield message["data"].decode() if message["type"] == "message" else SUBSCRIBED

    async def check(self) -> str | None:
        """Ask whether Redis is there. Returns a warning for the operator, or None.

        A Redis that evicts keys may drop lanes at any time: slow, though never wrong.
        """
        with _translated():
            await self._redis.ping()
            policy = (await self._redis.config_get("maxmemory-policy")).get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            return f"Redis evicts keys (maxmemory-policy {policy}); set it to noeviction, or jobs will be found late."
        return None

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    def _lanes(self, queue: str) -> list[str]:
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = [*(lane_key(queue, p) for p in PRIORITIES), states_key(queue)]
        return keys

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        script = self._scripts[name]
        with _translated():
            try:
                return await self._redis.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await self._redis.eval(LUA[name], len(keys), *keys, *args)
            except ReadOnlyError:
                # After a failover the old master stays read-only: resolve the address again.
                await self._pool.disconnect(inuse_connections=False)
                raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"Redis does not answer: {error or type(error).__name__}") from error
