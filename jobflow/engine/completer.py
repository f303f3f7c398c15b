"""The only writer of endings: batches them, frees their slots when Postgres has answered, keeps them while it is away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg
import msgspec

from jobflow import failpoints
from jobflow.broker import Entry
from jobflow.engine.executor import Supervision
from jobflow.engine.loop import Wake
from jobflow.engine.slots import Slots
from jobflow.errors import StoreUnavailable
from jobflow.events import Events, RunEnded, RunRefused
from jobflow.lifecycle import OPEN, Change, Failure, Status, complete, fail
from jobflow.pool import Row
from jobflow.pusher import Pusher
from jobflow.store import Store

BATCH = 500  # endings for each statement
LOCKED_WAIT = 0.05  # seconds before an ending whose row somebody holds is offered again
IDLE = 5.0  # seconds; an offer wakes us


class Ending(msgspec.Struct, eq=False):
    """A change that waits to be written, and how long its run took.

    settled: it need not be offered again. status: as it was written, empty until it was accepted.
    """

    change: Change
    seconds: float
    settled: bool = False
    status: str = ""


class Endings:
    """What the completers share: endings that wait. Bounded by the slots, which they keep."""

    def __init__(self, slots: Slots) -> None:
        self.wake = Wake()
        self.waiting: deque[Ending] = deque()
        self._slots = slots

    def offer(self, change: Change, supervision: Supervision) -> None:
        if supervision.abandoned:
            self._slots.restore(supervision)  # its ending was written without it
            return
        supervision.ended = True
        self.put(Ending(change, time.monotonic() - supervision.began))

    def put(self, ending: Ending) -> None:
        self.waiting.append(ending)
        self.wake.set()

    def take(self) -> list[Ending]:
        """A batch, with one ending for each job: who is accepted is told by the job's id. (A run whose claim was forgotten
        and the next one of the same job may end at the same time.)"""
        batch: dict[UUID, Ending] = {}
        while self.waiting and len(batch) < BATCH and (id := self.waiting[0].change.run.id) not in batch:
            batch[id] = self.waiting.popleft()
        return list(batch.values())


class Completer:
    """One of a few; while one's statement is on its way, another collects."""

    def __init__(
        self, name: str, *, store: Store, endings: Endings, slots: Slots, pusher: Pusher, events: Events
    ) -> None:
        self.name = name
        self.wake = endings.wake
        self._store, self._endings, self._slots = store.pinned(), endings, slots
        self._pusher, self._events = pusher, events

    async def tick(self) -> float:
        batch = self._endings.take()
        if not batch:
            return IDLE
        self._slots.expect([e.change.run for e in batch])
        try:
            await self._write(batch)
        except BaseException:
            self._endings.waiting.extendleft(e for e in reversed(batch) if not e.settled)
            raise
        finally:
            self._slots.give_up([e.change.run for e in batch if not (e.status and e.settled)])
        return 0

    async def _write(self, batch: list[Ending]) -> None:
        completed = [e for e in batch if e.change.after is Status.COMPLETED]
        others = [e for e in batch if e.change.after is not Status.COMPLETED]
        try:
            # A repeat after a lost answer is refused by the fence and then recognised as ours.
            await failpoints.reach("complete.ended")
            if completed:
                accepted = await self._store.complete_jobs([e.change for e in completed])
                for ending in completed:
                    if ending.change.run.id in accepted:
                        ending.status = Status.COMPLETED.value
            await failpoints.reach("complete.committed")
            if others:
                rows = await self._store.end_runs([e.change for e in others])
                for ending in others:
                    if ending.change.run.id in rows:
                        ending.status = rows[ending.change.run.id]["status"]
                await failpoints.reach("complete.failed")
                push_open(self._pusher, rows.values())
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            await self._write_apart(batch, error)
            return
        except asyncpg.PostgresError as error:
            # Deadlock, serialization failure, lock timeout: nothing was written, try again.
            raise StoreUnavailable(f"The endings could not be written: {error}") from error
        await failpoints.reach("complete.written")
        await self._settle(batch)
        if refused := [e for e in batch if not e.status]:
            await self._explain(refused)

    async def _write_apart(self, batch: list[Ending], error: Exception) -> None:
        """One row that Postgres does not take must not stop the others: find it by halves, and fail it."""
        if len(batch) > 1:
            await self._write(batch[: len(batch) // 2])
            await self._write(batch[len(batch) // 2 :])
            return
        run = batch[0].change.run
        failure = Failure("ResultNotStored", ascii(str(error))[:500])
        if batch[0].change.failure is not None and batch[0].change.failure.type == failure.type:
            raise error  # not even that could be written: a bug of ours, which the log must show
        await self._write([Ending(fail(run, failure, 60.0), batch[0].seconds)])
        batch[0].settled = True

    async def _explain(self, refused: list[Ending]) -> None:
        verdicts = await self._store.read_endings([e.change for e in refused])
        for ending in refused:
            verdict = verdicts.get(ending.change.run.id, "lost")
            if verdict == "locked":
                ending.settled = True  # it comes back by itself
                asyncio.get_running_loop().call_later(LOCKED_WAIT, self._again, ending)
            elif verdict in ("mine", Status.COMPLETED):
                if verdict == Status.COMPLETED and ending.change.after is not Status.COMPLETED:
                    ending.change = complete(ending.change.run, None)  # its handler has committed it: ctx.complete_in
                ending.status = ending.change.after.value
            else:
                ending.settled = True
                self._slots.release([ending.change.run])
                self._events.emit(RunRefused(ending.change))
        await self._settle(refused)

    async def _settle(self, batch: Sequence[Ending]) -> None:
        """Free the slots of those that were accepted, and tell: after a turn of the loop, in which the next are asked for."""
        accepted = [e for e in batch if e.status]
        self._slots.release([e.change.run for e in accepted])
        for ending in accepted:
            ending.settled = True
        await asyncio.sleep(0)
        if accepted:
            self._events.emit(*[RunEnded(e.change, e.seconds, e.status) for e in accepted])

    def _again(self, ending: Ending) -> None:
        ending.settled = False
        self._endings.put(ending)


def push_open(pusher: Pusher, rows: Iterable[Row]) -> None:
    """Make those known that may run again, of the rows that end_runs.sql wrote."""
    for row in rows:
        if row["status"] in OPEN:
            pusher.push(row["queue"], [Entry(row["priority"], row["run_at"], row["id"])])
