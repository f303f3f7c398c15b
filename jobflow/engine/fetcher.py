"""Takes due jobs: pops ids from Redis and claims their rows in Postgres; without Redis it asks Postgres for the ids."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any
from uuid import UUID

from jobflow import failpoints
from jobflow.broker import Broker
from jobflow.engine.agenda import POLL, Agenda
from jobflow.engine.fairness import Fairness
from jobflow.engine.handoff import Handoff
from jobflow.engine.health import Health
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.scheduler import Scheduler
from jobflow.engine.slots import Slots
from jobflow.errors import AnswerLost, BrokerUnavailable, StoreUnavailable
from jobflow.events import Events, RunStarted
from jobflow.lifecycle import Run
from jobflow.store import Store

AWAY = 1.0  # seconds before Redis is tried again


class Fetcher:
    """One of a few; they share slots and agenda, so that one pops while another's claim is on its way.

    ``shaken()`` is told when the answer to a claim was lost.
    """

    def __init__(
        self, name: str, *, store: Store, broker: Broker, lease: Lease, slots: Slots, agenda: Agenda, handoff: Handoff,
        scheduler: Scheduler, health: Health, events: Events, shaken: Callable[[], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.wake = agenda.wake
        self.claiming_since: float | None = None  # the audit must not mistake a claim on its way for a lost one
        self._store, self._broker, self._lease = store.pinned(), broker, lease
        self._slots, self._agenda, self._scheduler, self._health = slots, agenda, scheduler, health
        self._handoff, self._events, self._shaken = handoff, events, shaken
        self._fairness: dict[str, Fairness] = {}

    async def tick(self) -> float:
        if handed := self._handoff.take():
            name, ids = handed
            await self._fill(name, len(ids), self._claim(name, ids))
            return 0
        if not self._lease.trusted():
            return 0.2
        now = self._lease.now()
        if self._slots.free <= 0 or self._slots.scarce:
            return await self._look_ahead(now)
        if popped := self._slots.take_ahead():
            name, ids = popped
            await self._fill(name, len(ids), self._claim(name, ids))
            return 0
        queue = self._agenda.next(now)
        if queue is None:
            return self._agenda.wait(now)
        want = self._slots.reserve(self._slots.batch)
        await self._fill(queue, want, self._take(queue, want))
        return 0

    async def _fill(self, queue: str, reserved: int, claim: Coroutine[Any, Any, list[Run]]) -> None:
        """Have ``claim`` made and its runs take the slots that were set aside for it."""
        runs: list[Run] = []
        try:
            runs = await claim
        except StoreUnavailable as error:
            self._health.store_failed(error)
            self._agenda.again(queue)
            if isinstance(error, AnswerLost):
                self._shaken()
            raise
        finally:
            self._slots.fill(reserved, runs)
        if runs:
            self._events.emit(*map(RunStarted, runs))

    async def _look_ahead(self, now: datetime) -> float:
        """Pop for slots that are about to fall free, so that their next jobs are known when they are.

        What is popped and then not claimed, because an ending could not be written or the process ended, the sweep finds.
        """
        if boottime() < self._health.broker_failed_at + AWAY or not (want := self._slots.promise(self._slots.batch)):
            return POLL  # a slot that falls free wakes us; what is due meanwhile stays due
        queue, ids = self._agenda.next(now), None
        try:
            if queue is not None and (ids := await self._pop(queue, want)) is None:
                self._agenda.again(queue)
        finally:
            self._slots.keep_ahead(want, queue or "", ids or [])
        return 0 if ids else POLL

    async def _take(self, queue: str, want: int) -> list[Run]:
        """Up to ``want`` runs."""
        ids = await self._pop(queue, want)
        if ids is None:
            return await self._take_without_redis(queue, want)
        return await self._claim(queue, ids) if ids else []

    async def _pop(self, queue: str, want: int) -> list[UUID] | None:
        """Ids of up to ``want`` due jobs of a queue, which stays on the agenda if it may have more; None without Redis."""
        # Whoever was refused: a Redis that is full answers a pop of nothing and refuses what would fill the lane.
        if boottime() < self._health.broker_failed_at + AWAY:
            return None
        try:
            popped = await self._broker.pop(queue, self._lease.now(), want)
        except BrokerUnavailable as error:
            self._health.broker_failed(error)
            return None
        self._health.broker_answered()
        if popped.fills:
            self._scheduler.fill(queue, popped.fills)
        self._agenda.due(queue, popped.next_due)
        if len(popped.ids) == want:
            self._agenda.again(queue)
        return popped.ids

    async def _claim(self, queue: str, ids: list[UUID]) -> list[Run]:
        await failpoints.reach("claim.popped")
        # Right before it is sent: the loop may have stood still since the pop. The ids are then found by the sweep.
        if not self._lease.trusted() or self._lease.worker is None:
            return []
        self.claiming_since = boottime()
        try:
            runs = await self._store.claim_jobs(ids, self._lease.worker, queue)
            await failpoints.reach("claim.committed")
        finally:
            self.claiming_since = None
        found = {run.id: run for run in runs}
        return [run for id in ids if (run := found.pop(id, None))]  # in the order of their ids, each once

    async def _take_without_redis(self, queue: str, want: int) -> list[Run]:
        fairness = self._fairness.setdefault(queue, Fairness())
        worker = self._lease.worker
        if worker is None or not self._lease.trusted():
            return []
        self.claiming_since = boottime()
        try:
            async with self._store.connection() as connection, connection.transaction():
                lanes = await self._store.find_due(connection, queue, want)
                await failpoints.reach("fallback.found")
                shares = fairness.share({p: len(ids) for p, ids in lanes.items()}, want)
                ids = [id for p in sorted(shares) for id in lanes[p][: shares[p]]]
                runs = await self._store.claim_jobs(ids, worker, queue, connection) if ids else []
                await failpoints.reach("fallback.claimed")
        finally:
            self.claiming_since = None
        if len(ids) == want:
            self._agenda.again(queue)
        return runs
