"""One process of Jobflow, whole: the product's own engine, client, store and broker over simulated servers and clocks."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

import asyncpg

import jobflow.app  # noqa: F401  (so that every module is there to be patched)
from jobflow import Cancel, Context, Discard, Snooze, settings
from jobflow.client import Client
from jobflow.engine.engine import Engine
from jobflow.engine.executor import Supervision
from jobflow.engine.heartbeat import Heartbeat
from jobflow.engine.inbox import Inbox
from jobflow.engine.slots import Slots
from jobflow.errors import Unavailable
from jobflow.events import Event, Events, LoopFailed, RunEnded, RunRefused
from jobflow.intake import Intake
from jobflow.lifecycle import Run
from jobflow.pusher import Pusher
from jobflow.registry import Registry
from jobflow.store import Store
from tests.simulation.clock import LANE, Lane, VirtualLoop
from tests.simulation.network import Link, Pool, Session, connect
from tests.simulation.redis import SimulatedBroker

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE = 3.0  # seconds
SLOTS = 4
LANE_SIZE = 12  # ids, so that lanes spill over
QUEUES = ("default", "mail")

SETTINGS = settings.load(
    {
        "DATABASE_URL": "postgresql://nowhere",
        "REDIS_URL": "redis://nowhere",
        "WORKER_CONCURRENCY": str(SLOTS),
        "JOBFLOW_LEASE": str(LEASE),
        "JOBFLOW_OUTAGE_GRACE": "5",
        "JOBFLOW_GRACE": "1",
        "JOBFLOW_RETENTION_COMPLETED": "0",
        "JOBFLOW_RETENTION_CANCELLED": "0",
    }
)


class SimulatedHeartbeat(Heartbeat):
    """The product's heartbeat as a lane of its own instead of a thread."""

    making: Process

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process = SimulatedHeartbeat.making
        self._hurried: asyncio.Event | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        first: asyncio.Future[None] = loop.create_future()
        self._hurried = asyncio.Event()
        loop.spawn(self.process.heart, self._live(loop, first, 0))
        await first

    def hurry(self) -> None:
        if self._hurried is not None:
            self._hurried.set()

    async def stop(self) -> None:
        self._stopping = True
        self.hurry()

    async def _connect(self) -> Any:
        return await connect(self.process.link, steady=True)

    async def _rest(self, seconds: float) -> None:
        assert self._hurried is not None
        try:
            async with asyncio.timeout(max(seconds, 0.01)):
                await self._hurried.wait()
        except TimeoutError:
            pass
        self._hurried.clear()


class CheckedSlots(Slots):
    """Tells the rules which slot is freed."""

    process: Process

    def release(self, runs: Any) -> None:
        runs = list(runs)
        for run in runs:
            token = run.id, run.run_epoch
            if token in self.runs:
                self.process.world.judge("freed", token, token in self.process.link.answered)
        super().release(runs)


class CheckedInbox(Inbox):
    """Tells the rules which run is taken up."""

    process: Process

    async def take(self) -> Supervision | None:
        if (supervision := await super().take()) is not None:
            run = supervision.run
            self.process.world.judge("started", run.id, run.run_epoch, run.worker)
        return supervision


class Process:
    """``lane`` is its main thread, ``heart`` its heartbeat's; ``hindered``: until when something kept it from beating."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.lane = Lane(name)
        self.heart = Lane(name + "'s heart", self.lane)
        self.link = Link(world.server, name, patience=LEASE / 5)
        self.hindered = 0.0
        self.dead = self.draining = False
        self.broker = SimulatedBroker(world.redis, LANE_SIZE)
        events, registry = Events(), make_registry(world, self)
        pool: Any = Pool(self.link)
        pusher = Pusher(self.broker)
        self.client = Client(Store(pool, "web"), Intake(Store(pool, "web")), pusher, self.broker, registry, events)
        SimulatedHeartbeat.making = self
        self.engine = Engine(
            SETTINGS, version="0", store=Store(pool, "engine"), broker=self.broker, pusher=pusher, client=self.client,
            registry=registry, events=events, lag=lambda seconds: None,
        )  # fmt: skip
        self.engine._slots.__class__ = CheckedSlots
        self.engine._slots.inbox.__class__ = CheckedInbox
        self.engine._slots.process = self.engine._slots.inbox.process = self  # type: ignore[attr-defined]
        events.subscribe(self._hear)
        world.loop.spawn(self.lane, self._live())

    async def _live(self) -> None:
        while True:
            try:
                await self.engine.start(None)
                return
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError):
                self.world.replace(self)  # a process that cannot reach Postgres ends, and is started again
                return
            except Exception as error:
                self.world.fail(f"start: {error!r}")
                return

    @property
    def identities(self) -> tuple[UUID, ...]:
        return self.engine._lease.identities

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, RunEnded):
                self.world.judge("settled", event.change)
            elif isinstance(event, RunRefused):
                self.world.rules.counts["refused"] += 1
            elif isinstance(event, LoopFailed):
                self.world.fail(f"{self.name}: the loop {event.loop} failed: {event.error!r}")


def make_registry(world: World, process: Process) -> Registry:
    """Job types that end in every way there is."""
    registry, random = Registry(), world.random

    def quickly(attempt: int) -> float:
        return random.random() * 3

    @registry.job("quick", max_attempts=3)
    async def quick(payload: dict[str, Any]) -> None:
        await asyncio.sleep(random.random() * 0.05)

    @registry.job("slow", max_attempts=3)
    async def slow(payload: dict[str, Any]) -> None:
        await asyncio.sleep(random.random() * 4)

    @registry.job("flaky", max_attempts=3, backoff=quickly)
    async def flaky(payload: dict[str, Any]) -> None:
        if random.random() < 0.6:
            raise ValueError("flaky")

    @registry.job("late", max_attempts=2, timeout=0.5, backoff=quickly)
    async def late(payload: dict[str, Any]) -> None:
        await asyncio.sleep(random.random())

    @registry.job("moody")
    async def moody(payload: dict[str, Any], ctx: Context) -> Any:
        await asyncio.sleep(random.random() * 0.2)
        mood = random.random()
        if mood < 0.2:
            raise Discard("no use")
        return Snooze(mood) if mood < 0.6 else Cancel("no need") if mood < 0.7 else None

    @registry.job("deaf", max_attempts=2, timeout=2.0, backoff=quickly)
    async def deaf(payload: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(random.random() * 3)
        except asyncio.CancelledError:
            await asyncio.sleep(random.random() * 13)

    @registry.job("bomb", max_attempts=3)
    async def bomb(payload: dict[str, Any]) -> None:
        await asyncio.sleep(random.random())
        if random.random() < 0.5 and not world.calm:
            world.loop.outside(0, world.crash, process)
            await asyncio.sleep(1)

    return registry


TYPES = ("quick", "quick", "quick", "slow", "flaky", "late", "moody", "deaf", "bomb", "nobody's")


@contextmanager
def patched(loop: VirtualLoop, random: Random) -> Iterator[None]:
    """Every clock of the product is the loop's, every chance comes from the seed."""
    clock = types.SimpleNamespace(monotonic=loop.time, time=loop.time)
    numbers = iter(range(1, 1 << 60))

    def uuid7() -> UUID:
        return UUID(int=(int(loop.time() * 1000) << 80) | (7 << 76) | (2 << 62) | next(numbers))

    import random as chance

    with ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            if name.startswith("jobflow."):
                if hasattr(module, "boottime"):
                    stack.enter_context(patch.object(module, "boottime", loop.time))
                if hasattr(module, "uuid7"):
                    stack.enter_context(patch.object(module, "uuid7", uuid7))
                if name.startswith("jobflow.engine.") and hasattr(module, "time"):
                    stack.enter_context(patch.object(module, "time", clock))
        stack.enter_context(patch("jobflow.engine.engine.Heartbeat", SimulatedHeartbeat))
        stack.enter_context(patch("jobflow.engine.watchdog.ROUND", 0.25))
        stack.enter_context(patch("jobflow.engine.hints.ROUND", 30.0))
        before = chance.getstate()
        chance.seed(random.random())
        try:
            yield
        finally:
            chance.setstate(before)


__all__ = ["LANE", "LEASE", "Process", "Run", "Session", "patched"]
