"""Finds processes whose lease lapsed and has their jobs run again."""

from __future__ import annotations

import random
from collections import Counter

from jobflow import failpoints
from jobflow.engine.completer import push_open
from jobflow.engine.lease import Lease
from jobflow.engine.loop import Wake
from jobflow.events import Events, RunsRescued, WorkerMarkedLost
from jobflow.lifecycle import Run, lose
from jobflow.pusher import Pusher
from jobflow.store import Store

ROUND = 1.0  # seconds, or a tenth of a short lease
ORPHANS_EVERY = 30  # rounds between two looks for runs of processes that are not known at all


class Rescuer:
    """Every process has one, and any number may run at once: the row locks and the fence decide."""

    name = "rescuer"

    def __init__(self, *, store: Store, lease: Lease, pusher: Pusher, events: Events) -> None:
        self.wake = Wake()
        self._store, self._lease, self._pusher, self._events = store.pinned(), lease, pusher, events
        self._round = min(ROUND, lease.seconds / 10)
        self._ticks = 0

    async def tick(self) -> float:
        # Only who is well itself may judge: after an outage of Postgres all living processes beat first.
        if self._lease.healthy() and self._lease.worker is not None:
            for worker in await self._store.mark_lost(self._lease.worker, self._lease.now()):
                self._events.emit(WorkerMarkedLost(worker))
            await failpoints.reach("rescue.marked")
            # In a second transaction: a beat that was under way when we marked has lost by now.
            orphans = self._ticks % ORPHANS_EVERY == 0
            self._ticks += 1
            while runs := await self._store.find_lost_runs(orphans=orphans):
                if not await self._rescue(runs):
                    break
        return self._round * (0.8 + 0.4 * random.random())  # noqa: S311  (spreads processes out)

    async def _rescue(self, runs: list[Run]) -> int:
        await failpoints.reach("rescue.found")
        rows = await self._store.end_runs([lose(run) for run in runs], revoke=True)
        await failpoints.reach("rescue.committed")
        push_open(self._pusher, rows.values())
        for worker, count in Counter(run.worker for run in runs if run.id in rows).items():
            self._events.emit(RunsRescued(worker, count))
        return len(rows)
