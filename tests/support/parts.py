"""The engine's parts on real servers, without their loops: a test calls ``tick()`` itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from jobflow.broker import Broker, Entry
from jobflow.engine.agenda import Agenda
from jobflow.engine.completer import Completer, Endings
from jobflow.engine.fetcher import Fetcher
from jobflow.engine.handoff import Handoff
from jobflow.engine.health import Health
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.rescuer import Rescuer
from jobflow.engine.scheduler import Scheduler
from jobflow.engine.slots import Slots
from jobflow.errors import AnswerLost
from jobflow.events import Event, Events
from jobflow.lifecycle import Run
from jobflow.pool import Connection
from jobflow.pusher import Pusher
from jobflow.statements import SQL
from jobflow.store import Store
from tests.support.rows import new_job

LEASE = 15.0  # seconds
SLOTS = 10
NOWHERE = "redis://127.0.0.1:1/0"
NEVER = 3600.0

Kind = TypeVar("Kind", bound=Event)


class Parts:
    """What the parts of one process share. ``seen`` holds every event."""

    def __init__(self, store: Store, broker: Broker, slots: int = SLOTS) -> None:
        self.store, self.broker = store, broker
        self.seen: list[Event] = []
        self.events = Events()
        self.events.subscribe(self.seen.extend)
        self.lease = Lease(LEASE)
        self.agenda = Agenda()
        self.slots = Slots(slots, self.agenda.wake)
        self.handoff = Handoff(agenda=self.agenda, slots=self.slots, lease=self.lease)
        self.health = Health(self.events)
        self.pusher = Pusher(broker)
        self.endings = Endings(self.slots)
        self.shaken = 0
        self.scheduler = Scheduler(
            store=store, broker=broker, lease=self.lease, agenda=self.agenda, health=self.health, events=self.events
        )
        self.fetcher = self.make_fetcher("fetcher-0")
        self.completer = Completer(
            "completer-0", store=store, endings=self.endings, slots=self.slots, pusher=self.pusher, events=self.events
        )
        self.rescuer = Rescuer(store=store, lease=self.lease, pusher=self.pusher, events=self.events)

    def make_fetcher(self, name: str, broker: Broker | None = None) -> Fetcher:
        return Fetcher(
            name, store=self.store, broker=broker or self.broker, lease=self.lease, slots=self.slots,
            agenda=self.agenda, handoff=self.handoff, scheduler=self.scheduler, health=self.health, events=self.events,
            shaken=self._shake,
        )  # fmt: skip

    def _shake(self) -> None:
        self.shaken += 1
        self.lease.shake()

    async def register(self, *, seconds: float = 60.0, mine: bool = True) -> UUID:
        """A process in the table of workers; ``mine``: this one."""
        worker, started = uuid7(), boottime()
        async with self.store.connection() as connection:
            row = await connection.fetchrow(SQL["register_worker"], worker, "host", 1, "0", SLOTS, ["noop"], seconds)
        assert row is not None
        if mine:
            self.lease.take(worker)
            self.lease.confirm(started, boottime(), row["now"])
            # Long enough for everything a test does.
            self.lease.trust_until = boottime() + NEVER
        return worker

    async def insert(self, count: int = 1, **changes: Any) -> list[UUID]:
        """Committed jobs that Redis does not know of. Postgres' clock is then behind what the lease believes."""
        jobs = [new_job(**changes) for _ in range(count)]
        await self.store.add_queues({job.queue for job in jobs})
        await self.store.insert_jobs(jobs)
        self.agenda.know(dict.fromkeys([*self.agenda.queues, *(job.queue for job in jobs)], False))
        return [job.id for job in jobs]

    async def push(self, ids: Sequence[UUID], queue: str = "default", priority: int = 5) -> int:
        """Tell Redis, as the pusher does after a commit."""
        due = datetime.now(UTC) - timedelta(seconds=1)
        return (await self.broker.push(queue, [Entry(priority, due, id) for id in ids])).added

    async def claim(self, ids: Sequence[UUID], worker: UUID | None = None) -> list[Run]:
        claimed = await self.store.claim_jobs(ids, worker or self.me, "default")
        return sorted(claimed, key=lambda run: ids.index(run.id))

    async def take(self, ids: Sequence[UUID]) -> list[Run]:
        """Claim, and fill the slots as a fetcher does."""
        want = self.slots.reserve(len(ids))
        runs = await self.claim(ids)
        self.slots.fill(want, runs)
        return runs

    @property
    def me(self) -> UUID:
        assert self.lease.worker
        return self.lease.worker

    def be_healthy(self) -> None:
        """As if the last beats had all been answered."""
        self.lease.healthy_since = boottime() - LEASE

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def close(self) -> None:
        await self.pusher.flush()
        for part in (self.scheduler, self.fetcher, self.completer, self.rescuer):
            await part._store.release()  # type: ignore[attr-defined]


@asynccontextmanager
async def parts_on(store: Store, broker: Broker, slots: int = SLOTS) -> AsyncIterator[Parts]:
    parts = Parts(store, broker, slots)
    await parts.register()
    try:
        yield parts
    finally:
        await parts.close()


def losing(target: Any, method: str) -> Callable[[], None]:
    """The next calls of a method do what they should, and their answer is lost. Returns what undoes that."""
    real = getattr(target, method)

    async def lose(*args: Any, **options: Any) -> None:
        await real(*args, **options)
        raise AnswerLost("The connection was cut.", 0)

    setattr(target, method, lose)
    return lambda: delattr(target, method)


def failing(target: Any, method: str, error: Exception) -> Callable[[], None]:
    """The next calls of a method raise at once. Returns what undoes that."""

    async def fail(*args: Any, **options: Any) -> None:
        raise error

    setattr(target, method, fail)
    return lambda: delattr(target, method)


async def waits(database: Connection, id: UUID) -> float:
    """Seconds until a job may run, by Postgres' clock."""
    return float(
        await database.fetchval("SELECT extract(epoch FROM run_at - clock_timestamp()) FROM jobs WHERE id = $1", id)
    )
