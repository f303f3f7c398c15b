"""Postgres: one method for each file in sql/. Every move of a job is decided by a condition in one of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from jobflow.errors import AnswerLost, NotFound, Pruned
from jobflow.lifecycle import Attempt, Change, Job, JobError, NewJob, Run, Status
from jobflow.listing import JobFilter, Page, count_matching, find_ids, find_page
from jobflow.overview import (
    Overview,
    Queue,
    Totals,
    Worker,
    build_minutes,
    build_queues,
    build_totals,
    build_worker,
)
from jobflow.pool import Connection, Held, Pool, Row, answered, usable
from jobflow.statements import SQL, together

__all__ = ["JobFilter", "Page", "Queue", "Store", "Totals", "Worker"]

DAY_MS = 86_400_000


def day_of(id: UUID) -> int:
    """The day a UUIDv7 was made on, counted from 1970-01-01; ``job_day`` in SQL."""
    return (id.int >> 80) // DAY_MS


def _first_id(day: int) -> UUID:
    return UUID(int=(day * DAY_MS) << 80)


def _once(ids: Iterable[UUID]) -> list[UUID]:
    """A job that is named twice moves once and must be counted once."""
    return list(dict.fromkeys(ids))


def _successes(changes: Sequence[Change]) -> tuple[list[Any], ...]:
    """The columns that complete_jobs.sql takes."""
    return (
        [c.run.id for c in changes],
        [c.run.run_epoch for c in changes],
        _once_if_same([c.run.worker for c in changes]),
        _sparse([None if c.result is None else c.result.decode() for c in changes]),
    )


# asyncpg looks at each value of a column twice, so what unnest fills up with NULL again is not sent.


def _sparse(column: list[Any]) -> list[Any]:
    """Nothing at all for a column of nothing but NULL."""
    return column if column.count(None) < len(column) else []


def _once_if_same(column: list[Any]) -> list[Any]:
    """The first alone of a column that is never NULL, if all are the same: the statement takes it for the others."""
    first = column[:1]
    return first if column == first * len(column) else column


@cache
def _named(name: str) -> TextClause:
    """A statement for SQLAlchemy, whatever driver is below: its parameters are called p1, p2 …"""
    return text(re.sub(r"\$(\d+)", r"(:p\1)", SQL[name]))


JOB_WITH_HISTORY = (  # with its history, at one moment
    f"SELECT j.*, (SELECT json_agg(a) FROM ({SQL['get_attempts']}\n) a) AS history FROM ({SQL['get_job']}\n) j"  # noqa: S608
)
_TOTALS = {"count_jobs": None, "count_due": None}  # what build_totals takes
_QUEUES = {"list_queues": None, **_TOTALS, "oldest_due": None, "queue_rates": 1}  # what build_queues takes


class Store:
    """All statements, over connections of one share of the pool.

    Methods raise StoreUnavailable when nothing was sent, AnswerLost when a statement was sent and its outcome is unknown.
    """

    def __init__(self, pool: Pool, share: str) -> None:
        self._pool, self._share = pool, share

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._pool.connection(self._share) as connection:
            yield connection

    def pinned(self) -> PinnedStore:
        """The same statements over one connection that a single loop keeps."""
        return PinnedStore(self._pool, self._share)

    async def _rows(self, name: str, *args: Any) -> list[Row]:
        async with self.connection() as connection:
            return await connection.fetch(SQL[name], *args)

    async def _value(self, name: str, *args: Any) -> Any:
        rows = await self._rows(name, *args)
        return rows[0][0] if rows else None

    # ---- the way in -------------------------------------------------------------------------------------------------

    async def insert_jobs(self, jobs: Sequence[NewJob], connection: Connection | None = None) -> datetime:
        """Commit new jobs, all or none; with ``connection``, in its transaction. Returns created_at."""
        columns = (
            _once_if_same([job.owner for job in jobs]),
            [job.id for job in jobs],
            _once_if_same([job.queue for job in jobs]),
            _once_if_same([job.type for job in jobs]),
            _once_if_same([job.priority for job in jobs]),
            [job.payload.decode() for job in jobs],
            _once_if_same([job.max_attempts for job in jobs]),
            _once_if_same([job.timeout for job in jobs]),
            _sparse([job.run_at for job in jobs]),
            _sparse([job.delay for job in jobs]),
            _sparse([job.expires_at for job in jobs]),
            _sparse([job.unique_key for job in jobs]),
            _sparse([msgspec.json.encode(job.tags).decode() if job.tags else None for job in jobs]),
        )
        if connection is not None:
            created_at: datetime = await connection.fetchval(SQL["insert_jobs"], *columns)
        else:
            created_at = await self._value("insert_jobs", *columns)
        return created_at

    async def find_jobs(self, ids: Sequence[UUID]) -> dict[UUID, datetime]:
        return {row["id"]: row["created_at"] for row in await self._rows("find_jobs", ids)}

    async def end_backend(self, backend: int) -> bool:
        """End what may still be at work for a lost connection. True once it is gone."""
        return not await self._value("end_backend", backend)

    async def add_queues(self, names: Iterable[str]) -> None:
        await self._rows("add_queues", list(names))

    async def list_queues(self) -> dict[str, bool]:
        """Name of every queue, and whether it is paused."""
        return {row["name"]: row["paused"] for row in await self._rows("list_queues")}

    # Those that only make sense inside a transaction take its connection.

    async def try_keys_lock(self, connection: Connection, *, alone: bool) -> bool:
        got: bool = await connection.fetchval(SQL["try_keys_lock"], alone)
        return got

    async def try_locks(self, connection: Connection, names: Sequence[str]) -> set[str]:
        return {row["name"] for row in await connection.fetch(SQL["try_locks"], names)}

    async def find_keys(self, connection: Connection, owner: int, keys: Sequence[str]) -> dict[str, Row]:
        return {row["key"]: row for row in await connection.fetch(SQL["find_keys"], owner, keys)}

    async def insert_keys(
        self, connection: Connection, owner: int, keys: Sequence[tuple[str, bytes, Sequence[UUID]]], seconds: float
    ) -> None:
        arrays = ["{" + ",".join(map(str, ids)) + "}" for _, _, ids in keys]
        await connection.fetch(
            SQL["insert_keys"], owner, [k for k, _, _ in keys], [f for _, f, _ in keys], arrays, seconds
        )

    async def find_unique(self, connection: Connection, owner: int, keys: Sequence[str]) -> dict[str, Row]:
        return {row["unique_key"]: row for row in await connection.fetch(SQL["find_unique"], owner, keys)}

    # ---- runs -------------------------------------------------------------------------------------------------------

    async def claim_jobs(
        self, ids: Sequence[UUID], worker: UUID, queue: str, connection: Connection | None = None
    ) -> list[Run]:
        args = (ids, worker, queue)
        if connection is not None:
            rows = await connection.fetch(SQL["claim_jobs"], *args)
        else:
            rows = await self._rows("claim_jobs", *args)
        return [Run(worker, queue, *row) for row in rows]

    async def find_due(self, connection: Connection, queue: str, limit: int) -> dict[int, list[UUID]]:
        lanes: dict[int, list[UUID]] = {}
        for priority, id in await connection.fetch(SQL["find_due"], queue, limit):
            lanes.setdefault(priority, []).append(id)
        return lanes

    async def complete_jobs(self, changes: Sequence[Change]) -> set[UUID]:
        return {row[0] for row in await self._rows("complete_jobs", *_successes(changes))}

    async def complete_in(self, session: AsyncSession | AsyncConnection, change: Change) -> bool:
        """Accept a success in somebody's transaction. False: the fence does not hold. Raises what ``session`` raises."""
        # complete_jobs passes over a row that is locked; here nothing else waits behind us, so we wait for it.
        await session.execute(_named("lock_job"), {"p1": change.run.id})
        arrays = {f"p{n}": column for n, column in enumerate(_successes([change]), 1)}
        return (await session.execute(_named("complete_jobs"), arrays)).first() is not None

    async def end_runs(self, changes: Sequence[Change], *, revoke: bool = False) -> dict[UUID, Row]:
        failures = [c.failure for c in changes]
        rows = await self._rows(
            "end_runs",
            [c.run.id for c in changes],
            [c.run.run_epoch for c in changes],
            [c.run.worker for c in changes],
            [c.after.value for c in changes],
            [c.cause.value for c in changes],
            [c.attempt for c in changes],
            [c.rescues for c in changes],
            [c.delay for c in changes],
            [c.reason for c in changes],
            [f and f.type for f in failures],
            [f and f.message for f in failures],
            [f and f.traceback for f in failures],
            [c.recorded for c in changes],
            revoke,
        )
        return {row["id"]: row for row in rows}

    async def read_endings(self, changes: Sequence[Change]) -> dict[UUID, str]:
        ids, epochs = [c.run.id for c in changes], [c.run.run_epoch for c in changes]
        rows = await self._rows("read_endings", ids, epochs, [c.run.worker for c in changes])
        return {row["id"]: row["verdict"] for row in rows}

    async def handled_types(self) -> set[str]:
        return {row["type"] for row in await self._rows("handled_types")}

    # ---- processes --------------------------------------------------------------------------------------------------

    async def set_worker_state(self, worker: UUID, state: str) -> None:
        await self._rows("set_worker_state", worker, state)

    async def mark_lost(self, myself: UUID, sent: datetime | None = None) -> list[UUID]:
        """``sent``: Postgres' time now, as far as the caller knows; a statement that arrives late judges nobody."""
        return [row["id"] for row in await self._rows("mark_lost", myself, sent)]

    async def find_lost_runs(self, *, orphans: bool) -> list[Run]:
        return [Run(payload="", **row) for row in await self._rows("find_lost_runs", orphans)]

    # ---- upkeep -----------------------------------------------------------------------------------------------------

    async def page_lanes(
        self, queue: str, tails: dict[int, tuple[datetime, UUID] | None], limit: int, before: datetime | None = None
    ) -> dict[int, bytes]:
        known = [tail or (None, None) for tail in tails.values()]
        rows = await self._rows(
            "page_lanes", queue, list(tails), [run_at for run_at, _ in known], [id for _, id in known], limit, before
        )
        return {row["priority"]: row["page"] for row in rows}

    async def expire_jobs(self, limit: int) -> list[Row]:
        return await self._rows("expire_jobs", limit)

    async def fold_counters(self) -> int:
        return int(await self._value("fold_counters"))

    async def prune_small(self, limit: int) -> int:
        return int(await self._value("prune_small", limit))

    async def prune_jobs(self, status: str, seconds: float, limit: int) -> int:
        return int(await self._value("prune_jobs", status, seconds, limit))

    async def prune_stragglers(self, seconds: float, limit: int) -> int:
        return int(await self._value("prune_stragglers", seconds, limit))

    async def oldest_transaction(self, seconds: float) -> Row | None:
        """``pid``, ``name`` and ``seconds`` of the transaction open for longest, if for longer than ``seconds``."""
        return next(iter(await self._rows("oldest_transaction", seconds)), None)

    async def list_days(self) -> list[int]:
        return [row["day"] for row in await self._rows("list_days")]

    async def create_day(self, day: int) -> None:
        """Give a day its partitions. Raises asyncpg.PostgresError when a lock is not got at once: try again later."""
        await self._day("create_day", "1s", day=str(day), low=str(_first_id(day)), high=str(_first_id(day + 1)))

    async def drop_day(self, day: int, seconds: float) -> None:
        """Drop a day's partitions; jobs younger than ``seconds`` are kept. Raises as create_day does."""
        await self._day("drop_day", "200ms", day=str(day), seconds=str(float(seconds)))

    async def _day(self, name: str, lock_timeout: str, **words: str) -> None:
        statement = SQL[name]
        for word, value in words.items():
            statement = statement.replace("{" + word + "}", value)
        # The locks stop every reader and writer of the parent: rather give up than make them wait behind us.
        async with self.connection() as connection, connection.transaction():
            await connection.execute(
                f"SET LOCAL lock_timeout = '{lock_timeout}'; SET LOCAL statement_timeout = '10min'"
            )
            await connection.execute(statement, timeout=600)

    # ---- people -----------------------------------------------------------------------------------------------------

    async def retry_jobs(self, connection: Connection, ids: Sequence[UUID]) -> list[Row]:
        return await connection.fetch(SQL["retry_jobs"], _once(ids))

    async def cancel_jobs(
        self, ids: Sequence[UUID], reason: str, connection: Connection | None = None, *, running: bool = False
    ) -> list[Row]:
        if connection is not None:
            return await connection.fetch(SQL["cancel_jobs"], _once(ids), reason, running)
        return await self._rows("cancel_jobs", _once(ids), reason, running)

    async def discard_jobs(self, ids: Sequence[UUID]) -> list[Row]:
        return await self._rows("discard_jobs", _once(ids))

    async def delete_jobs(self, ids: Sequence[UUID]) -> list[Row]:
        return await self._rows("delete_jobs", ids)

    async def find_status(self, ids: Sequence[UUID]) -> dict[UUID, Row]:
        return {row["id"]: row for row in await self._rows("find_status", ids)}

    # ---- reads ------------------------------------------------------------------------------------------------------

    async def get_job(self, id: UUID) -> Job:
        """One job with its history. Raises NotFound, or Pruned when its day may have been dropped."""
        async with self.connection() as connection:
            row = await connection.fetchrow(JOB_WITH_HISTORY, id)
            if row is None:
                oldest = await connection.fetchval(SQL["list_days"])
                if id.version == 7 and oldest is not None and day_of(id) < oldest:
                    raise Pruned(f"Job {id} is older than what is kept; if it existed, it was pruned.")
                raise NotFound(f"There is no job {id}.")
        job = build_job(row)
        job.attempts = list(_attempts(row, msgspec.json.decode(row["history"] or "[]")))
        return job

    async def list_jobs(
        self, wanted: JobFilter, *, limit: int, before: UUID | None = None, offset: int = 0, after: UUID | None = None
    ) -> Page:
        """Jobs, newest first. ``before``: the ones below this id; ``after``: the last ones above it.

        Raises StoreUnavailable, Invalid: narrow it.
        """
        async with self.connection() as connection:
            return await find_page(connection, wanted, limit, before, offset, build_job, after)

    async def list_ids(self, wanted: JobFilter, limit: int, before: UUID | None) -> list[UUID]:
        async with self.connection() as connection:
            return await find_ids(connection, wanted, limit, before)

    async def count_matching(self, wanted: JobFilter) -> int:
        async with self.connection() as connection:
            return await count_matching(connection, wanted)

    async def totals(self) -> Totals:
        """Counts by status, exact at this moment: folded counters, deltas, and what fell due."""
        return build_totals(*await self._together(_TOTALS))

    async def queues(self) -> list[Queue]:
        return build_queues(*await self._together(_QUEUES))

    async def queue(self, name: str) -> Queue:
        """Raises NotFound: no job was ever submitted to this queue."""
        for queue in await self.queues():
            if queue.name == name:
                return queue
        raise NotFound(f"There is no queue {name!r}: a queue exists once a job was submitted to it.")

    async def workers(self) -> list[Worker]:
        (workers,) = await self._together({"list_workers": None})
        return [build_worker(row) for row in workers]

    async def overview(self, minutes: int) -> Overview:
        """Queues, processes and the last ``minutes``, oldest first, the current one included."""
        *queues, workers, past = await self._together(_QUEUES | {"list_workers": None, "minutes": minutes})
        return Overview(build_queues(*queues), [build_worker(row) for row in workers], build_minutes(past))

    async def _together(self, reads: Mapping[str, int | None]) -> list[list[dict[str, Any]]]:
        """The rows of each of the named statements."""
        async with self.connection() as connection:
            row = await connection.fetchrow(together(*reads.items()))
        assert row is not None  # noqa: S101  (told to the type checker: nothing in FROM, so one row)
        return [msgspec.json.decode(part) for part in row]

    async def ping(self) -> None:
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")


class PinnedStore(Store):
    """A Store for one loop, which keeps its connection and drops it after an error; never used by two at once."""

    _held: Held | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        if self._held is None:
            self._held = await self._pool.take(self._share)
        broken = True
        try:
            with answered(self._held.raw):
                yield self._held.raw
            broken = False
        except AnswerLost:
            raise
        except Exception:
            broken = not usable(self._held.raw)
            raise
        finally:
            if broken:
                await self.release(broken=True)

    async def release(self, *, broken: bool = False) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.give_back(broken=broken)


def build_job(row: Any) -> Job:
    """A row of ``jobs`` or ``jobs_done``, as people see it."""
    result = row["result"]
    return Job(
        id=row["id"],
        type=row["type"],
        status=row["status"],
        queue=row["queue"],
        priority=row["priority"],
        payload=msgspec.Raw(row["payload"].encode()),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        run_at=row["run_at"],
        timeout=row["timeout"],
        expires_at=row["expires_at"],
        unique_key=row["unique_key"],
        tags=row["tags"],
        result=None if result is None else msgspec.Raw(result.encode()),
        error=_error(row),
        rescues=row["rescues"],
        worker=row["locked_by"],
        cancel_requested=row["cancel_requested"],
        cancel_reason=row["cancel_reason"],
        batch=row["batch"],
        schedule=row["schedule"],
        trace_id=row["trace_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _error(row: Any) -> JobError | None:
    return JobError(row["error_type"], row["error_message"] or "") if row["error_type"] else None


def _attempts(job: Any, history: Sequence[Any]) -> Iterable[Attempt]:
    for number, row in enumerate(history, 1):
        yield msgspec.convert({**row, "number": number, "error": _error(row)}, Attempt)
    # The run that is on, or that succeeded, is on the job's row alone.
    if job["status"] in (Status.PROCESSING, Status.COMPLETED):
        yield Attempt(
            number=len(history) + 1,
            attempt=job["attempt"],
            worker=job["locked_by"],
            started_at=job["started_at"],
            finished_at=job["finished_at"],
            outcome=job["status"],
        )
