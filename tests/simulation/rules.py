"""The invariants of the design, I1 to I12, checked at every move that the model of Postgres makes.

They keep records of their own and look at no guard, so that a move which a missing guard lets through is seen.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from jobflow.lifecycle import LIVE, MOVES, OPEN, RESCUES, Cause, Change, Status

Token = tuple[UUID, int]  # job id and run_epoch


class Broken(AssertionError):
    """An invariant does not hold; the text begins with its name."""


def demand(condition: Any, text: str) -> None:
    if not condition:
        raise Broken(text)


class Rules:
    def __init__(self) -> None:
        self.top: dict[UUID, int] = {}  # highest epoch that was ever given out, forgotten ones included
        self.claimed_by: dict[Token, UUID] = {}  # every claim that was ever committed
        self.open: dict[UUID, tuple[int, UUID]] = {}  # the claim that has not ended
        self.accepted: set[Token] = set()
        self.succeeded: set[UUID] = set()
        self.stopped: set[UUID] = set()  # cancelled, or asked to be
        self.known: set[UUID] = set()
        self.deleted: set[UUID] = set()
        self.acknowledged: dict[UUID, None] = {}  # those that have not ended for good
        self.keys: dict[str, list[UUID]] = {}
        self.lost_workers: set[UUID] = set()
        self.counts = dict.fromkeys(("claims", "endings", "rescues", "forgotten", "refused"), 0)

    def inserted(self, id: UUID) -> None:
        demand(id not in self.known, f"I3 {id} was inserted twice")
        self.known.add(id)

    # ---- moves of rows --------------------------------------------------------------------------------------------------

    def moved(self, row: Any, before: str, after: str, cause: Cause) -> None:
        demand(MOVES[Status(before)].get(cause) == after, f"I7 {cause} moved {row.id} from {before} to {after}")
        if cause is Cause.RETRIED:
            self.stopped.discard(row.id)
        elif after == Status.CANCELLED:
            self.stopped.add(row.id)

    def claimed(self, row: Any, before: str, worker: UUID, *, alive: bool) -> None:
        id = row.id
        demand(id not in self.succeeded, f"I3 {id} was claimed after its success")
        demand(id not in self.stopped, f"I8 {id} was claimed after it was cancelled")
        self.moved(row, before, row.status, Cause.CLAIMED)
        demand(alive, f"I5 {id} was claimed by {worker}, which is not alive")
        demand(row.run_epoch > self.top.get(id, 0), f"I4 {id} got epoch {row.run_epoch} after {self.top.get(id)}")
        demand(row.attempt <= row.max_attempts, f"I6 {id} runs for the {row.attempt}th time of {row.max_attempts}")
        demand(id not in self.open, f"I3 {id} was claimed while a claim of it is open")
        self.top[id] = row.run_epoch
        self.open[id] = row.run_epoch, worker
        self.claimed_by[id, row.run_epoch] = worker
        self.counts["claims"] += 1

    def forgotten(self, id: UUID) -> None:
        """A crash of Postgres took a claim back."""
        self.open.pop(id, None)
        self.counts["forgotten"] += 1

    def ended(self, row: Any, change: tuple[int, UUID, str, str], worker: Any, *, revoke: bool, judged: bool) -> None:
        """``change``: epoch, worker, status after and cause, as whoever ends it believes. ``revoke``: it is not the run's
        worker; ``judged``: because its process is lost, not because it is long overdue."""
        epoch, owner, after, cause = change
        id = row.id
        demand(
            self.open.get(id) == (epoch, owner),
            f"I3 an ending of run {epoch} of {id} was accepted, not of {self.open.get(id)}",
        )
        demand((id, epoch) not in self.accepted, f"I3 run {epoch} of {id} was accepted twice")
        if id in self.stopped and after in OPEN:
            raise Broken(f"I8 {id} may run again after it was cancelled")
        if after != MOVES[Status.PROCESSING].get(Cause(cause)):
            demand(id in self.stopped and after == Status.CANCELLED, f"I7 {cause} ended {id} as {after}")
        if revoke:
            self.counts["rescues"] += 1
        if judged:
            demand(worker is None or worker.state in ("lost", "stopped"), f"I5 {id} was taken from a living process")
        if after == Status.COMPLETED:
            demand(id not in self.succeeded, f"I3 {id} succeeded twice")
            self.succeeded.add(id)
        demand(
            0 <= row.attempt <= row.max_attempts and row.rescues <= RESCUES, f"I6 {id}: {row.attempt}, {row.rescues}"
        )
        if row.rescues >= RESCUES:
            demand(
                after in (Status.DEAD_LETTER, Status.CANCELLED, Status.COMPLETED), f"I6 {id} runs after its third loss"
            )
        demand(row.run_epoch >= epoch, f"I4 the epoch of {id} fell")
        if not revoke:
            self.accepted.add((id, epoch))
        del self.open[id]
        self.counts["endings"] += 1

    def key_kept(self, key: str, ids: list[UUID]) -> None:
        demand(key not in self.keys, f"I9 the key {key} stands for {self.keys.get(key)} and for {ids}")
        self.keys[key] = ids

    def removed(self, row: Any) -> None:
        demand(row.status != Status.PROCESSING, f"I7 {row.id} was deleted while it ran")
        self.deleted.add(row.id)
        self.acknowledged.pop(row.id, None)

    def marked_lost(self, worker: UUID, guilty: bool) -> None:
        demand(guilty, f"I5 {worker} was marked lost, though nothing but Postgres kept it from beating")
        self.lost_workers.add(worker)

    def beat(self, worker: UUID) -> None:
        demand(worker not in self.lost_workers, f"I5 {worker} came back after it was marked lost")

    # ---- what processes see ---------------------------------------------------------------------------------------------

    def started(self, id: UUID, epoch: int, worker: UUID) -> None:
        demand(self.claimed_by.get((id, epoch)) == worker, f"I2 a handler of {id} runs without its claim {epoch}")

    def freed(self, token: Token, answered: bool) -> None:
        demand(answered, f"I12 the slot of {token} was freed before Postgres answered")

    def settled(self, change: Change) -> None:
        """A process says that its ending was accepted."""
        token = change.run.id, change.run.run_epoch
        demand(token in self.accepted, f"I3 the ending of {token} is called accepted and was not")

    def acknowledge(self, id: UUID, server: Any) -> None:
        self.acknowledged[id] = None
        self.kept(id, server)

    def kept(self, id: UUID, server: Any) -> None:
        there = id in server.jobs or id in server.done or id in self.deleted
        demand(there, f"I1 {id} was acknowledged and is gone")

    # ---- everything -------------------------------------------------------------------------------------------------------

    def check_all(self, server: Any) -> None:
        for id in list(self.acknowledged):
            self.kept(id, server)
            if id in server.done:
                del self.acknowledged[id]  # nothing moves it any more, as `moved` and `claimed` see to
        unique: set[str] = set()
        for row in server.jobs.values():
            demand(row.id not in server.done, f"I3 {row.id} is done and to be done")
            demand((row.id in self.open) == (row.status == Status.PROCESSING), f"I3 {row.id} is {row.status}")
            if row.unique_key is not None and row.status in LIVE:
                demand(row.unique_key not in unique, f"I9 two live jobs have the unique_key {row.unique_key}")
                unique.add(row.unique_key)
