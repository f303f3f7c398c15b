"""Takes due jobs: pops ids from Redis and claims their rows in Postgres; without Redis it asks Postgres for the ids."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from jobflow import failpoints
from jobflow.broker import Broker
from jobflow.engine.agenda import POLL, Agenda
from jobflow.engine.fairness import Fairness
from jobflow.engine.health import Health
from jobflow.engine.lease import Lease, boottime
from jobflow.engine.scheduler import Scheduler
from jobflow.engine.slots import Slots
from jobflow.errors import AnswerLost, BrokerUnavailable, StoreUnavailable
from jobflow.lifecycle import Run
from jobflow.store import Store

BATCH = 500  # jobs for each claim at most
AWAY = 1.0  # seconds before Redis is tried again


class Fetcher:
    """One of a few; they share slots and agenda, so that one pops while another's claim is on its way.

    ``shaken()`` is told when the answer to a claim was lost.
    """

    def __init__(
        self, name: str, *, store: Store, broker: Broker, lease: Lease, slots: Slots, agenda: Agenda, scheduler: Scheduler,
        health: Health, shaken: Callable[[], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.wake = agenda.wake
        self.claiming_since: float | None = None  # the audit must not mistake a claim on its way for a lost one
        self._store, self._broker, self._lease = store.pinned(), broker, lease
        self._slots, self._agenda, self._scheduler, self._health = slots, agenda, scheduler, health
        self._shaken = shaken
        # No more than half of the slots at once: while these run, the other half is claimed or written.
        self._batch = min(BATCH, (slots.total + 1) // 2)
        self._fairness: dict[str, Fairness] = {}

    async def tick(self) -> float:
        if not self._lease.trusted():
            return 0.2
        now = self._lease.now()
        if self._slots.free <= 0:
            return POLL  # a freed slot wakes us; what is due meanwhile stays due
        queue = self._agenda.next(now)
        if queue is None:
            return self._agenda.wait(now)
        want = self._slots.reserve(self._batch)
        runs: list[Run] = []
        try:
            runs, more = await self._take(queue, want)
        except StoreUnavailable as error:
            self._health.store_failed(error)
            self._agenda.again(queue)
            if isinstance(error, AnswerLost):
                self._shaken()
            raise
        finally:
            self._slots.fill(want, runs)
        if more:
            self._agenda.again(queue)
        return 0

    async def _take(self, queue: str, want: int) -> tuple[list[Run], bool]:
        """Up to ``want`` runs, and whether there may be more."""
        # Whoever was refused: a Redis that is full answers a pop of nothing and refuses what would fill the lane.
        if boottime() >= self._health.broker_failed_at + AWAY:
            try:
                popped = await self._broker.pop(queue, self._lease.now(), want)
                self._health.broker_answered()
            except BrokerUnavailable as error:
                self._health.broker_failed(error)
            else:
                if popped.fills:
                    self._scheduler.fill(queue, popped.fills)
                self._agenda.due(queue, popped.next_due)
                runs = await self._claim(queue, popped.ids) if popped.ids else []
                return runs, len(popped.ids) == want
        return await self._take_without_redis(queue, want)

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
        order = {id: place for place, id in enumerate(ids)}
        return sorted(runs, key=lambda run: order[run.id])

    async def _take_without_redis(self, queue: str, want: int) -> tuple[list[Run], bool]:
        fairness = self._fairness.setdefault(queue, Fairness())
        worker = self._lease.worker
        if worker is None or not self._lease.trusted():
            return [], False
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
        return runs, len(ids) == want
