"""A model of the statements in jobflow/sql: each is atomic, a crash forgets the last commits that nobody waited for.

``tests/simulation/test_store_machine.py`` runs the same calls against this model and against the real statements, and
compares. ``off`` names guards that a test takes out of the statements to see an invariant break.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any
from uuid import UUID

import asyncpg

from jobflow.broker import Entry
from jobflow.lifecycle import FINAL, LIVE, OPEN, Cause, Status, sources
from tests.simulation.rules import Rules
from tests.support.lanes import packed

FORGETS = 0.6  # seconds of commits that a crash may take back
START = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = datetime(1970, 1, 1, tzinfo=UTC)


class Record:
    """A row of an answer, as asyncpg gives it: iterates values, is read by name or place."""

    __slots__ = ("_row",)

    def __init__(self, **row: Any) -> None:
        self._row = row

    def __getitem__(self, key: str | int) -> Any:
        return list(self._row.values())[key] if isinstance(key, int) else self._row[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._row.values())

    def keys(self) -> Any:
        return self._row.keys()

    def items(self) -> Any:
        return self._row.items()


class Job:
    """A row of jobs or jobs_done. ``history``: epoch → (worker, outcome)."""

    def __init__(self, **columns: Any) -> None:
        self.attempt = self.rescues = self.run_epoch = 0
        self.locked_by: UUID | None = None
        self.started_at = self.finished_at = self.cancel_requested_at = None
        self.cancel_reason = self.error_type = None
        self.history: dict[int, tuple[UUID, str]] = {}
        self.__dict__.update(columns)


class Worker:
    def __init__(self, id: UUID, types: Sequence[str], concurrency: int, lease_until: datetime) -> None:
        self.id, self.types, self.concurrency, self.lease_until = id, list(types), concurrency, lease_until
        self.state = "alive"


class Blocked(Exception):
    """Somebody holds a row that this statement waits for."""


class Transaction:
    def __init__(self) -> None:
        self.writes: list[Callable[[], None]] = []
        self.names: set[str] = set()
        self.relaxed = True  # no write in it asks for a synchronous commit


STOPPABLE = {
    cause: tuple(s for s in sources(cause) if s is not Status.PROCESSING)
    for cause in (Cause.CANCELLED, Cause.DISCARDED, Cause.EXPIRED, Cause.RETRIED)
}
RUN = "id run_epoch type priority payload attempt max_attempts rescues timeout run_at started_at".split()
LOSSES = (Cause.LOST, Cause.LOST_AGAIN, Cause.GIVEN_UP)


class Postgres:
    """``clock()``: seconds since START. ``guilty(worker)``: whether this process gave reason to be called lost."""

    def __init__(self, clock: Callable[[], float], rules: Rules, off: Iterable[str] = ()) -> None:
        self.clock, self.rules, self.off = clock, rules, frozenset(off)
        self.guilty: Callable[[UUID], bool] = lambda worker: True
        self.jobs: dict[UUID, Job] = {}
        self.done: dict[UUID, Job] = {}
        self.workers: dict[UUID, Worker] = {}
        self.queues: dict[str, None] = {}
        self.keys: dict[str, tuple[bytes, list[UUID], datetime]] = {}
        self.locks: dict[UUID, Transaction] = {}  # rows
        self.names: dict[str, Transaction] = {}  # advisory locks
        self._unflushed: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock())

    def run(self, name: str, args: Sequence[Any], transaction: Transaction | None = None) -> list[Record]:
        """One statement. Raises Blocked: try again later."""
        found: list[Record] = getattr(self, "_" + name)(transaction, *args)
        return found

    def commit(self, transaction: Transaction) -> None:
        writes, relaxed = transaction.writes, transaction.relaxed
        self.roll_back(transaction)
        for write in writes:
            write()
        if writes and not relaxed:
            self._unflushed.clear()

    def roll_back(self, transaction: Transaction) -> None:
        for locks in (self.locks, self.names):
            for name in [name for name, holder in locks.items() if holder is transaction]:
                del locks[name]  # type: ignore[attr-defined]

    def crash(self, choose: Callable[[int], int]) -> int:
        """The server dies and is back: of n commits that were not waited for, the last ``choose(n)`` are forgotten."""
        self.locks.clear()
        self.names.clear()
        young = sum(1 for at, _ in self._unflushed if at > self.clock() - FORGETS)
        count = choose(young)
        for _ in range(count):
            self._unflushed.pop()[1]()
        self._unflushed.clear()
        return count

    def _write(self, transaction: Transaction | None, write: Callable[[], None]) -> None:
        """Commits synchronously: everything before it is then on disk, too."""
        if transaction is None:
            write()
            self._unflushed.clear()
        else:
            transaction.writes.append(write)
            transaction.relaxed = False

    def _write_soon(self, transaction: Transaction | None, write: Callable[[], None]) -> None:
        """synchronous_commit = off."""
        if transaction is None:
            write()
        else:
            transaction.writes.append(write)

    def _undo(self, undo: Callable[[], None]) -> None:
        self._unflushed.append((self.clock(), undo))

    def _free(self, id: UUID, transaction: Transaction | None) -> bool:
        return self.locks.get(id) in (None, transaction)

    def _rows(self, ids: Iterable[UUID], transaction: Transaction | None, *, wait: bool) -> list[Job]:
        """FOR UPDATE, with SKIP LOCKED unless it shall wait."""
        found = []
        for id in sorted(set(ids)):
            row = self.jobs.get(id)
            if row is None:
                continue
            if self._free(id, transaction):
                found.append(row)
            elif wait:
                raise Blocked
        return found

    def _hold(self, rows: Iterable[Job], transaction: Transaction | None) -> None:
        if transaction is not None:
            for row in rows:
                self.locks[row.id] = transaction

    # ---- the way in -----------------------------------------------------------------------------------------------------

    def _insert_jobs(self, tx: Transaction | None, *columns: Sequence[Any]) -> list[Record]:
        now = self.now()
        rows = []
        full = [_for_each(column, len(columns[1])) for column in columns[:8]]
        for owner, id, queue, type, priority, payload, most, timeout, run_at, delay, expires, unique, _ in zip_longest(
            *full, *columns[8:]
        ):
            due = max(run_at or now + timedelta(seconds=delay or 0), now)
            status = Status.SCHEDULED if due > now else Status.PENDING
            rows.append(
                Job(
                    id=id, owner=owner, queue=queue, type=type, priority=priority, payload=payload, max_attempts=most,
                    timeout=timeout, run_at=due, expires_at=expires, unique_key=unique, status=status.value,
                    created_at=now, updated_at=now,
                )
            )  # fmt: skip

        def write() -> None:
            live = {row.unique_key for row in self.jobs.values() if row.status in LIVE and row.unique_key is not None}
            if any(row.id in self.jobs or row.unique_key in live for row in rows):
                raise asyncpg.UniqueViolationError("jobs_unique")
            for row in rows:
                self.rules.inserted(row.id)
                self.jobs[row.id] = row

        self._write(tx, write)
        return [Record(created_at=now)]

    def _find_jobs(self, tx: Transaction | None, ids: Sequence[UUID]) -> list[Record]:
        return [Record(id=row.id, created_at=row.created_at) for row in self._anywhere(ids)]

    def _anywhere(self, ids: Iterable[UUID]) -> list[Job]:
        return [row for id in ids for row in (self.jobs.get(id) or self.done.get(id),) if row is not None]

    def _add_queues(self, tx: Transaction | None, names: Sequence[str]) -> list[Record]:
        self.queues.update(dict.fromkeys(names))
        return []

    def _list_queues(self, tx: Transaction | None) -> list[Record]:
        return [Record(name=name, paused=False) for name in sorted(self.queues)]

    def _try_keys_lock(self, tx: Transaction | None, alone: bool) -> list[Record]:
        return [Record(got=not alone)]

    def _try_locks(self, tx: Transaction, names: Sequence[str]) -> list[Record]:
        if "key locks" in self.off:
            return [Record(name=name) for name in names]
        got = [name for name in names if self.names.setdefault(name, tx) is tx]
        return [Record(name=name) for name in got]

    def _find_keys(self, tx: Transaction, owner: int, keys: Sequence[str]) -> list[Record]:
        known = [(key, *self.keys[key]) for key in keys if key in self.keys]
        return [Record(key=k, fingerprint=f, job_ids=ids, created_at=at) for k, f, ids, at in known]

    def _insert_keys(
        self,
        tx: Transaction,
        owner: int,
        keys: Sequence[str],
        prints: Sequence[bytes],
        ids: Sequence[str],
        seconds: float,
    ) -> list[Record]:
        now = self.now()

        def write() -> None:
            for key, fingerprint, text in zip(keys, prints, ids, strict=True):
                named = [UUID(part) for part in text[1:-1].split(",")]
                self.rules.key_kept(key, named)
                self.keys[key] = fingerprint, named, now

        self._write(tx, write)
        return []

    def _find_unique(self, tx: Transaction, owner: int, keys: Sequence[str]) -> list[Record]:
        live = [row for row in self.jobs.values() if row.unique_key in keys and row.status in LIVE]
        return [Record(unique_key=r.unique_key, id=r.id, status=r.status, created_at=r.created_at) for r in live]

    # ---- runs ---------------------------------------------------------------------------------------------------------------

    def _claim_jobs(self, tx: Transaction | None, ids: Sequence[UUID], worker: UUID, queue: str) -> list[Record]:
        now, owner = self.now(), self.workers.get(worker)
        if "worker check" not in self.off and not (owner and owner.state == "alive" and owner.lease_until > now):
            return []
        claimed = []
        for row in self._rows(ids, tx, wait=False):
            if "status check" not in self.off and row.status not in OPEN:
                continue
            if (
                row.run_at > now
                or row.queue != queue
                or row.cancel_requested_at
                or (row.expires_at and row.expires_at <= now)
            ):
                continue
            micros = 0 if "clock epoch" in self.off else (now - ZERO) // timedelta(microseconds=1)
            claimed.append((row, max(row.run_epoch + 1, micros)))
        self._hold((row for row, _ in claimed), tx)
        # Judged by what the statement sees. Its commit may come later, even after the process was marked lost: that claim
        # is a lost run like the others, which the next look for them finds.
        alive = owner is not None and owner.state == "alive"

        def write() -> None:
            for row, epoch in claimed:
                before = copy.copy(row)
                row.status, row.attempt, row.locked_by = Status.PROCESSING.value, row.attempt + 1, worker
                row.started_at = row.updated_at = now
                row.run_epoch = epoch
                self.rules.claimed(row, before.status, worker, alive=alive)
                self._undo(lambda row=row, before=before: self._forget(row, before))  # type: ignore[misc]

        self._write_soon(tx, write)
        runs = []
        for row, epoch in claimed:
            attempt = row.attempt if tx is None else row.attempt + 1
            columns = {name: getattr(row, name) for name in RUN} | {
                "run_epoch": epoch,
                "attempt": attempt,
                "started_at": now,
            }
            runs.append(Record(**columns))
        return runs

    def _forget(self, row: Job, before: Job) -> None:
        row.__dict__.update(before.__dict__)
        self.rules.forgotten(row.id)

    def _find_due(self, tx: Transaction, queue: str, limit: int) -> list[Record]:
        now, found = self.now(), []
        for priority in range(10):
            rows = [r for r in self._lane(queue, priority) if r.run_at <= now and self._free(r.id, tx)][:limit]
            self._hold(rows, tx)
            found += [Record(priority=priority, id=row.id) for row in rows]
        return found

    def _lane(self, queue: str, priority: int) -> list[Job]:
        rows = [r for r in self.jobs.values() if r.priority == priority and r.queue == queue and r.status in OPEN]
        return sorted(rows, key=lambda row: (row.run_at, row.id))

    def _held(self, endings: Sequence[tuple[Any, ...]]) -> list[tuple[Job, tuple[Any, ...]]]:
        """Those whose fence holds: each begins with id, run_epoch and worker. Of two for one job the first counts: Postgres
        passes over a row that the same statement has changed already."""
        rows = {row.id: row for row in self._rows((ending[0] for ending in endings), None, wait=False)}
        found: dict[UUID, tuple[Job, tuple[Any, ...]]] = {}
        for ending in endings:
            row = rows.get(ending[0])
            if row is not None and self._held_by(row, ending[1], ending[2]):
                found.setdefault(row.id, (row, ending))
        return list(found.values())

    def _held_by(self, row: Job, epoch: int, worker: UUID) -> bool:
        if "fence" in self.off:
            return row.status == Status.PROCESSING
        return row.status == Status.PROCESSING and row.run_epoch == epoch and row.locked_by == worker

    def _complete_jobs(
        self,
        tx: None,
        ids: Sequence[UUID],
        epochs: Sequence[int],
        workers: Sequence[UUID],
        results: Sequence[str | None],
    ) -> list[Record]:
        ended = self._held(list(zip(ids, epochs, _for_each(workers, len(ids)), strict=True)))

        def write() -> None:
            for row, (_, epoch, worker) in ended:
                change = epoch, worker, "completed", "completed"
                self.rules.ended(row, change, self._owner(row), revoke=False, judged=False)
                row.status, row.finished_at = Status.COMPLETED.value, self.now()
                self.done[row.id] = self.jobs.pop(row.id)

        self._write(None, write)
        return [Record(id=row.id) for row, _ in ended]

    def _owner(self, row: Job) -> Worker | None:
        return self.workers.get(row.locked_by) if row.locked_by else None

    def _end_runs(self, tx: None, *columns: Any) -> list[Record]:
        *arrays, revoke = columns
        ended, now = self._held(list(zip(*arrays, strict=True))), self.now()

        def write() -> None:
            for row, change in ended:
                self._end(row, change, now, revoke)

        self._write(None, write)
        return [Record(id=r.id, queue=r.queue, priority=r.priority, status=r.status, run_at=r.run_at) for r, _ in ended]

    def _end(self, row: Job, change: tuple[Any, ...], now: datetime, revoke: bool) -> None:
        _, epoch, worker, after, cause, attempt, rescues, delay, reason, error, _, _, recorded = change
        wins = row.cancel_requested_at is not None and "cancel wins" not in self.off
        status = Status.CANCELLED.value if wins else after
        row.status, row.attempt, row.rescues, row.updated_at = status, attempt, rescues, now
        if revoke and "revoke" not in self.off:
            row.run_epoch += 1
        if delay is not None:
            row.run_at = now + timedelta(seconds=delay)
        row.cancel_reason = (row.cancel_reason or reason) if status == Status.CANCELLED else None
        row.error_type = error or row.error_type
        row.finished_at = now if status in FINAL else None
        if recorded or status != after:
            row.history[epoch] = worker, cause
        taken = revoke and not self._overdue(row)
        self.rules.ended(row, (epoch, worker, status, cause), self._owner(row), revoke=revoke, judged=taken)

    def _read_endings(
        self, tx: None, ids: Sequence[UUID], epochs: Sequence[int], workers: Sequence[UUID]
    ) -> list[Record]:
        return [
            Record(id=id, verdict=self._verdict(id, epoch, worker))
            for id, epoch, worker in zip(ids, epochs, workers, strict=True)
        ]

    def _verdict(self, id: UUID, epoch: int, worker: UUID) -> str:
        for row in self._anywhere([id]):
            if row.run_epoch == epoch and row.locked_by == worker:
                if row.status == Status.COMPLETED:
                    return "completed"
                return "locked" if row.status == Status.PROCESSING else "mine"
            if row.history.get(epoch, (None, None))[0] == worker and row.history[epoch][1] not in LOSSES:
                return "mine"
        return "lost"

    # ---- processes ----------------------------------------------------------------------------------------------------------

    def _register_worker(
        self,
        tx: None,
        id: UUID,
        host: str,
        pid: int,
        version: str,
        concurrency: int,
        types: Sequence[str],
        lease: float,
    ) -> list[Record]:
        self._write(None, lambda: None)
        self.workers[id] = Worker(id, types, concurrency, self.now() + timedelta(seconds=lease))
        return [Record(now=self.now())]

    def _beat(self, tx: None, id: UUID, lease: float, running: int) -> list[Record]:
        worker = self.workers[id]
        if "no return" not in self.off and worker.state not in ("alive", "draining"):
            return []
        if worker.state == "lost":
            worker.state = "alive"
        self.rules.beat(id)
        until, worker.lease_until = worker.lease_until, self.now() + timedelta(seconds=lease)
        self._undo(lambda: setattr(worker, "lease_until", until))
        return [Record(now=self.now(), alive=sum(w.state == "alive" for w in self.workers.values()))]

    def _audit_runs(self, tx: None, workers: Sequence[UUID]) -> list[Record]:
        names = [name for name in RUN if name != "payload"]
        return [
            Record(
                **{name: getattr(row, name) for name in names}, worker=row.locked_by, queue=row.queue,
                cancel_requested=row.cancel_requested_at is not None,
            )
            for row in self.jobs.values() if row.status == Status.PROCESSING and row.locked_by in workers
        ]  # fmt: skip

    def _handled_types(self, tx: None) -> list[Record]:
        alive = [
            w for w in self.workers.values() if w.state == "alive" and w.lease_until > self.now() and w.concurrency
        ]
        return [Record(type=type) for type in sorted({type for worker in alive for type in worker.types})]

    def _set_worker_state(self, tx: None, id: UUID, state: str) -> list[Record]:
        if self.workers[id].state in ("alive", "draining"):
            self.workers[id].state = state
        self._write(None, lambda: None)
        return []

    def _mark_lost(self, tx: None, myself: UUID, sent: datetime | None) -> list[Record]:
        now, marked = self.now(), []
        if "mark first" in self.off or (
            sent and now >= sent + timedelta(seconds=1) and "late judgement" not in self.off
        ):
            return []
        for worker in self.workers.values():
            if worker.state in ("alive", "draining") and worker.lease_until < now and worker.id != myself:
                worker.state = "lost"
                self.rules.marked_lost(worker.id, self.guilty(worker.id))
                marked.append(Record(id=worker.id))
        self._write(None, lambda: None)
        return marked

    def _find_lost_runs(self, tx: None, orphans: bool) -> list[Record]:
        found = []
        for row in self.jobs.values():
            if row.status == Status.PROCESSING and self._is_lost(row, orphans):
                names = [name for name in RUN if name != "payload"]
                found.append(Record(**{n: getattr(row, n) for n in names}, worker=row.locked_by, queue=row.queue))
        return found[:500]

    def _is_lost(self, row: Job, orphans: bool) -> bool:
        worker = self._owner(row)
        if orphans and (worker is None or self._overdue(row)):
            return True
        if worker is None:
            return False
        return worker.state in ("lost", "stopped") or ("mark first" in self.off and worker.lease_until < self.now())

    def _overdue(self, row: Job) -> bool:
        assert row.started_at is not None
        return bool(row.started_at < self.now() - timedelta(seconds=2 * row.timeout + 60))

    # ---- upkeep -------------------------------------------------------------------------------------------------------------

    def _page_lanes(
        self,
        tx: None,
        queue: str,
        lanes: Sequence[int],
        run_ats: Sequence[Any],
        ids: Sequence[Any],
        limit: int,
        before: Any,
    ) -> list[Record]:
        found = []
        for priority, run_at, id in zip(lanes, run_ats, ids, strict=True):
            rows = self._lane(queue, priority)
            if run_at is not None:
                rows = [row for row in rows if (row.run_at, row.id) > (run_at, id)]
            if before is not None:
                rows = [row for row in rows if row.run_at < before]
            if rows:
                page = packed(Entry(priority, row.run_at, row.id) for row in rows[:limit])
                found.append(Record(priority=priority, page=page))
        return found

    def _expire_jobs(self, tx: None, limit: int) -> list[Record]:
        now, found = self.now(), []
        for row in list(self.jobs.values()):
            late = row.expires_at is not None and row.expires_at < now and row.status in STOPPABLE[Cause.EXPIRED]
            if late and self._free(row.id, None) and len(found) < limit:
                found.append(Record(id=row.id, before=row.status))
                row.cancel_reason = "expired: it was not started before expires_at"
                self._stop(row, Status.CANCELLED, Cause.EXPIRED)
        self._write(None, lambda: None)
        return found

    def _stop(self, row: Job, status: Status, cause: Cause) -> None:
        before, row.status = row.status, status.value
        row.finished_at = row.updated_at = self.now()
        self.rules.moved(row, before, row.status, cause)

    def _fold_counters(self, tx: None) -> list[Record]:
        return [Record(folded=0)]

    def _prune_small(self, tx: None, limit: int) -> list[Record]:
        return [Record(deleted=0)]

    def _oldest_transaction(self, tx: None, seconds: float) -> list[Record]:
        return []

    def _list_days(self, tx: None) -> list[Record]:
        return [Record(day=day) for day in range(10)]

    # ---- people -------------------------------------------------------------------------------------------------------------

    def _retry_jobs(self, tx: Transaction, ids: Sequence[UUID]) -> list[Record]:
        now = self.now()
        rows = [row for row in self._rows(ids, tx, wait=True) if row.status in STOPPABLE[Cause.RETRIED]]
        self._hold(rows, tx)

        def write() -> None:
            ids = {row.id for row in rows}
            live = {row.unique_key for row in self.jobs.values() if row.status in LIVE and row.id not in ids} - {None}
            if any(row.unique_key in live for row in rows):
                raise asyncpg.UniqueViolationError("jobs_unique")
            for row in rows:
                before, row.status = row.status, Status.PENDING.value
                row.run_at = row.updated_at = now
                row.finished_at = row.cancel_reason = row.cancel_requested_at = None
                if before in FINAL:
                    row.attempt = row.rescues = 0
                if row.expires_at and row.expires_at <= now:
                    row.expires_at = None
                self.rules.moved(row, before, row.status, Cause.RETRIED)

        self._write(tx, write)
        return [Record(id=r.id, queue=r.queue, priority=r.priority, run_at=now, before=r.status) for r in rows]

    def _cancel_jobs(self, tx: Transaction | None, ids: Sequence[UUID], reason: str, running: bool) -> list[Record]:
        moved = self._stop_all(tx, ids, Status.CANCELLED, Cause.CANCELLED, reason)
        if not running:
            return moved
        rows = [
            r for r in self._rows(ids, tx, wait=True) if r.status == Status.PROCESSING and not r.cancel_requested_at
        ]
        for row in rows:  # never in a transaction
            row.cancel_requested_at = row.updated_at = self.now()
            row.cancel_reason = reason
            self.rules.stopped.add(row.id)
        return moved + [Record(id=r.id, queue=r.queue, priority=r.priority, before=r.status) for r in rows]

    def _discard_jobs(self, tx: None, ids: Sequence[UUID]) -> list[Record]:
        return self._stop_all(tx, ids, Status.DEAD_LETTER, Cause.DISCARDED, None)

    def _stop_all(
        self, tx: Transaction | None, ids: Sequence[UUID], status: Status, cause: Cause, reason: str | None
    ) -> list[Record]:
        rows = [row for row in self._rows(ids, tx, wait=True) if row.status in STOPPABLE[cause]]
        self._hold(rows, tx)
        moved = [Record(id=r.id, queue=r.queue, priority=r.priority, before=r.status) for r in rows]

        def write() -> None:
            for row in rows:
                row.cancel_reason = reason
                if cause is Cause.DISCARDED:
                    row.error_type = row.error_type or "Discarded"
                self._stop(row, status, cause)

        self._write(tx, write)
        return moved

    def _delete_jobs(self, tx: None, ids: Sequence[UUID]) -> list[Record]:
        rows = [row for row in self._rows(ids, tx, wait=True) if row.status != Status.PROCESSING]
        rows += [self.done[id] for id in dict.fromkeys(ids) if id in self.done]
        for row in rows:
            self.rules.removed(row)
            self.jobs.pop(row.id, None)
            self.done.pop(row.id, None)
        self._write(None, lambda: None)
        return [Record(id=r.id, queue=r.queue, priority=r.priority, before=r.status) for r in rows]

    def _find_status(self, tx: None, ids: Sequence[UUID]) -> list[Record]:
        return [
            Record(
                id=r.id, status=r.status, owner=0, updated_at=r.updated_at,
                unique_key=None if r.status == Status.COMPLETED else r.unique_key,
            )
            for r in self._anywhere(ids)
        ]  # fmt: skip

    def _get_job(self, tx: None, id: UUID) -> list[Record]:
        extra = dict.fromkeys(("result", "batch", "schedule", "trace_id", "history"))
        return [
            Record(
                **{name: value for name, value in row.__dict__.items() if name != "history"}, **extra, tags=[],
                error_message="", cancel_requested=row.cancel_requested_at is not None,
            )
            for row in self._anywhere([id])
        ]  # fmt: skip


def _for_each(column: Sequence[Any], count: int) -> Sequence[Any]:
    """A column that is never NULL: where all values are the same, one was sent for all."""
    return column if len(column) == count else [*column] * count
