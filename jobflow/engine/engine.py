"""Starts every part, compares what Postgres says with what runs here, and drains: stop claiming, wait, hand back the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

from jobflow import failpoints
from jobflow.broker import Broker
from jobflow.client import Client
from jobflow.engine.agenda import Agenda
from jobflow.engine.completer import Completer, Ending, Endings
from jobflow.engine.executor import Executor
from jobflow.engine.fetcher import Fetcher
from jobflow.engine.folder import Folder
from jobflow.engine.handoff import Handoff
from jobflow.engine.health import Health
from jobflow.engine.heartbeat import Audit, Heartbeat
from jobflow.engine.hints import Hints
from jobflow.engine.lease import Lease
from jobflow.engine.listener import Listener
from jobflow.engine.loop import Part, Pulse, Stop, run_forever
from jobflow.engine.pruner import Pruner
from jobflow.engine.rescuer import Rescuer
from jobflow.engine.scheduler import Scheduler
from jobflow.engine.slots import Key, Slots
from jobflow.engine.watchdog import Watchdog
from jobflow.engine.worker import Worker
from jobflow.errors import JobflowError
from jobflow.events import (
    ClaimsAdopted,
    ClaimsForgotten,
    Events,
    ProcessDraining,
    ProcessStarted,
    ProcessStopped,
    TransactionHeld,
)
from jobflow.lifecycle import Run, Status, release, unstart
from jobflow.pusher import Pusher
from jobflow.registry import Registry
from jobflow.settings import Settings
from jobflow.store import Store

PAIRS = 2  # of fetchers and of completers: one works while the other's statement is on its way
CANCEL_WAIT = 2.0  # seconds for cancelled handlers to tidy up
WRITE_WAIT = 10.0  # seconds for the last endings to be written
TYPES_KEPT = 1.0  # seconds that the answer to "who handles this type?" is used for
DAY = 86_400

State = Literal["starting", "running", "draining", "stopped"]


class Engine:
    """``lag(seconds)`` is told how late the loop is. Constructors open nothing; ``start()`` does.

    ``hopeless()``, to be set from outside, is told when no slot is left: handlers that do not end hold them all.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        version: str,
        store: Store,
        broker: Broker,
        pusher: Pusher,
        client: Client,
        registry: Registry,
        events: Events,
        lag: Callable[[float], None],
    ) -> None:
        self.state: State = "starting"
        self.hopeless: Callable[[], None] = lambda: None
        self._settings, self._registry, self._events = settings, registry, events
        self._store, self._client, self._pusher = store, client, pusher
        self._health, self._pulse = Health(events), Pulse()
        self._agenda, self._lease = Agenda(), Lease(settings.lease)
        self._slots = slots = Slots(settings.worker_concurrency, self._agenda.wake)
        self._endings = endings = Endings(slots)
        self._handoff = Handoff(agenda=self._agenda, slots=slots, lease=self._lease)
        self._heartbeat = Heartbeat(
            settings.database_url, self._lease, events,
            version=version, concurrency=slots.total, types=sorted(registry.types),
            running=lambda: len(slots.runs), holder=self._holder, seen=self._seen, failed=self._health.store_failed,
        )  # fmt: skip
        shared: dict[str, Any] = {"store": store, "events": events}
        known: dict[str, Any] = {"lease": self._lease, "agenda": self._agenda, "health": self._health}
        self._scheduler = Scheduler(**shared, **known, broker=broker)
        self._fetchers = self._make_fetchers(broker, **known)
        self._completers = [
            Completer(f"completer-{n}", **shared, endings=endings, slots=slots, pusher=pusher) for n in range(PAIRS)
        ]
        self._pruner = Pruner(**shared, retention=_retention(settings))
        self.hints = Hints(broker=broker, health=self._health, events=events)
        self._listeners = self._listen(broker)
        self._upkeep: list[Part] = [
            self._scheduler,
            *self._listeners,
            self.hints,
            Rescuer(**shared, lease=self._lease, pusher=pusher),
            Folder(store=store),
            self._pruner,
            Watchdog(
                slots=slots, endings=endings, lease=self._lease, events=events, outage=settings.outage_grace, lag=lag,
                hopeless=lambda: self.hopeless(),
            ),
        ]  # fmt: skip
        pusher.heard, pusher.told, pusher.offer = self._heard, self._lease.tell, self._handoff.offer
        self.hints.stop = self._heartbeat.hurry
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="handler")
        self._claiming, self._ending, self._upkeeping = Stop(), Stop(), Stop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._suspects: set[Key] = set()
        self._handled: tuple[float, set[str]] = (0.0, set())
        self._hurried = asyncio.Event()

    def _make_fetchers(self, broker: Broker, **known: Any) -> list[Fetcher]:
        return [
            Fetcher(
                f"fetcher-{n}", **known, store=self._store, broker=broker, slots=self._slots, handoff=self._handoff,
                scheduler=self._scheduler, events=self._events, shaken=self._shaken,
            )
            for n in range(PAIRS if self._slots.total else 0)
        ]  # fmt: skip

    def _listen(self, broker: Broker) -> list[Listener]:
        return [
            Listener(name, source, heard=heard, subscribed=subscribed, health=self._health, pulse=self._pulse)
            for name, source, heard, subscribed in (
                ("wake-listener", broker.wakes, self._agenda.notice, self._agenda.notice_all),
                ("hint-listener", broker.hints, self.hints.hear, self.hints.resume),
            )
        ]

    # ---- what others may ask ----------------------------------------------------------------------------------------

    def pulse(self) -> float:
        """Seconds by which the slowest loop is late."""
        return self._pulse.overdue()

    @property
    def broker_up(self) -> bool:
        return self._health.broker_up

    @property
    def store_up(self) -> bool:
        return self._health.store_up

    @property
    def held(self) -> TransactionHeld | None:
        """A transaction that has been open for too long."""
        return self._pruner.held

    @property
    def live_processes(self) -> int:
        return max(self._lease.alive, 1)

    # ---- start ------------------------------------------------------------------------------------------------------

    async def start(self, state: Any) -> None:
        """Register this process and start every loop. ``state``: what the handlers' lifespan yielded."""
        await self._pruner.prepare()
        self._agenda.know(await self._store.list_queues())
        await self._heartbeat.start()
        executor = Executor(
            registry=self._registry, state=state, events=self._events, threads=self._threads,
            enqueue=self._client.enqueue, complete_in=self._store.complete_in, has_elsewhere=self._has_elsewhere,
        )  # fmt: skip
        for part in self._upkeep:
            self._loop(part, self._upkeeping)
        for completer in self._completers:
            self._loop(completer, self._ending)
        for fetcher in self._fetchers:
            self._loop(fetcher, self._claiming)
        parts: dict[str, Any] = {"slots": self._slots, "executor": executor, "endings": self._endings}
        self._workers = [Worker(f"worker-{n}", **parts) for n in range(self._slots.total)]
        for worker in self._workers:
            worker.start()
        self.state = "running"
        assert self._lease.worker is not None  # noqa: S101  (the heartbeat has registered it)
        self._events.emit(ProcessStarted(self._lease.worker, self._slots.total, sorted(self._registry.types)))

    def _loop(self, part: Part, stop: Stop) -> None:
        self._start(part.name, run_forever(part, stop, self._pulse, self._events))

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=name)

    async def _has_elsewhere(self, type: str) -> bool:
        asked, types = self._handled
        if time.monotonic() - asked > TYPES_KEPT:
            types = await self._store.handled_types()
            self._handled = (time.monotonic(), types)
        return type in types

    def _heard(self, queue: str, cold: list[int]) -> None:
        if cold:
            self._scheduler.fill(queue, dict.fromkeys(cold, ""))
        self._agenda.notice(queue)

    # ---- the self-audit ---------------------------------------------------------------------------------------------

    def _shaken(self) -> None:
        self._lease.shake()
        self._heartbeat.hurry()

    def _holder(self, task: asyncio.Task[Any]) -> Run | None:
        return next((s.run for s in list(self._slots.runs.values()) if s.task is task and not s.ended), None)

    def _seen(self, audit: Audit) -> None:
        """Compare, both ways, what Postgres thinks this process runs with what it does run."""
        self._health.store_answered()
        rows = {(row["id"], row["run_epoch"]): row for row in audit.rows}
        runs = self._slots.runs
        gone = 0
        for key, supervision in list(runs.items()):
            if supervision.ended:
                continue
            if key in rows:
                if rows[key]["cancel_requested"]:
                    supervision.stop("cancel")
            elif supervision.claimed < audit.asked and not supervision.completing:
                # Its claim was forgotten by a crash of Postgres, or the job was rescued: the fence would refuse its end.
                supervision.stop("lost")
                gone += 1
        if gone:
            self._events.emit(ClaimsForgotten(gone))
        self._adopt(rows, audit)
        self._lease.audited = audit.asked
        self._agenda.wake.set()

    def _adopt(self, rows: dict[Key, Any], audit: Audit) -> None:
        """Hand back claims whose answer was lost. A run that has just ended looks the same once, so twice is needed;
        a claim whose answer is still on its way is waited for."""
        on_its_way = any(f.claiming_since is not None and f.claiming_since < audit.asked for f in self._fetchers)
        unknown = set() if on_its_way else rows.keys() - self._slots.runs.keys()
        adopted = unknown & self._suspects
        for key in adopted:
            row = {name: value for name, value in rows[key].items() if name != "cancel_requested"}
            self._endings.put(Ending(unstart(Run(payload="", **row)), 0.0))
        if adopted:
            self._events.emit(ClaimsAdopted(len(adopted)))
        self._suspects = unknown - adopted

    # ---- drain ------------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Do not wait for the rest of the grace period."""
        self._hurried.set()

    async def drain(self) -> None:
        """Stop claiming, let running jobs finish within the grace period, hand back the rest unspent, stop every loop."""
        if self.state in ("draining", "stopped"):
            return
        began = time.monotonic()
        started = self.state == "running"
        self.state = "draining"
        if started:
            self._events.emit(ProcessDraining(len(self._slots.runs)))
            await self._stop_claiming()
            await failpoints.reach("drain.stopped")
            await self._finish(self._settings.grace)
            released = await self._hand_back()
            await failpoints.reach("drain.written")
            self._ending.asked = self._upkeeping.asked = True
            await self._end_loops()
            await self._heartbeat.stop()
            await self._say("stopped")
            self._events.emit(ProcessStopped(released, time.monotonic() - began))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.state = "stopped"

    async def _stop_claiming(self) -> None:
        self._claiming.asked = True
        for _ in self._fetchers:
            self._agenda.wake.set()
        await self._say("draining")
        # What a claim on its way brings is handed back below.
        fetchers = [self._tasks[f.name] for f in self._fetchers]
        if fetchers:
            await asyncio.wait(fetchers)
        for queue, entries in self._handoff.close().items():
            self._pusher.push(queue, entries)
        for supervision in self._slots.inbox.clear():
            self._endings.offer(unstart(supervision.run), supervision)

    async def _say(self, state: str) -> None:
        if self._lease.worker is not None:
            with suppress(JobflowError):  # then its lease lapses, which says the same later
                await self._store.set_worker_state(self._lease.worker, state)

    async def _finish(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._slots.runs and time.monotonic() < deadline and not self._hurried.is_set():
            await asyncio.sleep(0.02)

    async def _hand_back(self) -> int:
        left = [s for s in self._slots.runs.values() if not s.ended]
        for supervision in left:
            supervision.stop("drain")
        self._hurried.clear()
        await self._finish(CANCEL_WAIT)
        for supervision in left:
            if not supervision.ended:
                # Its handler does not let go. The process ends anyway; the job runs elsewhere.
                back = release if supervision.started else unstart
                self._endings.offer(back(supervision.run), supervision)
                supervision.abandoned = True
                self._slots.write_off(supervision)
        await self._finish(WRITE_WAIT)
        return len(left)

    async def _end_loops(self) -> None:
        self._slots.inbox.close()
        for part in (*self._upkeep, *self._completers):
            part.wake.set()
        for listener in self._listeners:
            self._tasks.pop(listener.name).cancel()  # they wait for Redis
        _, late = await asyncio.wait(self._tasks.values(), timeout=WRITE_WAIT)
        if self._workers:
            _, stuck = await asyncio.wait([worker.task for worker in self._workers], timeout=0.1)
            late |= stuck
        for supervision in self._slots.stuck:
            if supervision.task is not None:
                with suppress(RuntimeError):  # deaf to cancelling: this ends it, or it is deaf to everything
                    supervision.task.get_coro().close()
        for task in late:
            task.cancel()
        if late:
            ended, _ = await asyncio.wait(late, timeout=CANCEL_WAIT)
            await asyncio.gather(*ended, return_exceptions=True)


def _retention(settings: Settings) -> dict[Status, float]:
    return {
        Status.COMPLETED: settings.retention_completed * DAY,
        Status.CANCELLED: settings.retention_cancelled * DAY,
        Status.DEAD_LETTER: settings.retention_dead_letter * DAY,
    }
