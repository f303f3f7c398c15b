"""Lists of jobs with free filters, newest first, over the live and the done table.

An id is a UUIDv7, so its order is the order of creation and a page begins below an id. Text search and payload filters
look at the newest rows of the other filters' result only, and say so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import Select, Table, and_, cast, func, literal, literal_column, null, or_, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import Text

from jobflow.errors import Fault, Invalid
from jobflow.lifecycle import Job, Status
from jobflow.pool import Connection
from jobflow.tables import jobs, jobs_done

EXACT = 10_000  # totals are exact up to here
SEARCHED = 100_000  # newest rows that a text or payload filter looks at
TIMEOUT_MS = 2_000
CLOCKS = 3600.0  # seconds by which hosts' clocks may differ

_SHARED = (
    "id type queue priority payload attempt max_attempts run_at timeout expires_at unique_key tags error_type "
    "error_message rescues run_epoch locked_by batch schedule trace_id created_at started_at finished_at"
).split()


_DIALECT = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to list. ``error``: text in the type or message of the last failure, any case.

    ``payload``: pairs of a path and the value there, as text (``("user", "id"), "42"``).
    """

    statuses: tuple[str, ...] = ()
    type: str | None = None
    queue: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    error: str | None = None
    payload: tuple[tuple[tuple[str, ...], str], ...] = ()

    @property
    def searches(self) -> bool:
        return bool(self.error or self.payload)


class Page(msgspec.Struct, kw_only=True):
    """``next``: the id below which the next page begins. ``capped``: there are more than ``total``.

    ``searched``: how many of the newest rows a text or payload filter looked at, None when all were.
    """

    items: list[Job]
    next: UUID | None
    total: int
    capped: bool
    searched: int | None


async def find_page(
    connection: Connection,
    wanted: JobFilter,
    limit: int,
    before: UUID | None,
    offset: int,
    build: Callable[[Any], Job],
) -> Page:
    tables = _tables(wanted)
    page = union_all(*(_rows(t, wanted, before, limit + offset + 1) for t in tables)).subquery()
    listed = select(page).order_by(page.c.id.desc()).limit(limit + 1).offset(offset)
    async with _free(connection, f"{TIMEOUT_MS}ms"):
        rows = await _fetch(connection, listed)
        count = await _count(connection, wanted, EXACT + 1)
    items = [build(row) for row in rows[:limit]]
    return Page(
        items=items,
        next=items[-1].id if len(rows) > limit else None,
        total=min(count, EXACT),
        capped=count > EXACT,
        searched=SEARCHED if wanted.searches else None,
    )


async def find_ids(connection: Connection, wanted: JobFilter, limit: int, before: UUID | None) -> list[UUID]:
    """Ids of matching jobs, newest first."""
    found = union_all(*(_ids(t, wanted, limit, before) for t in _tables(wanted))).subquery()
    async with _free(connection, "10s"):
        rows = await _fetch(connection, select(found.c.id).order_by(found.c.id.desc()).limit(limit))
    return [row[0] for row in rows]


async def count_matching(connection: Connection, wanted: JobFilter) -> int:
    async with _free(connection, "10s"):
        return await _count(connection, wanted, None)


async def _count(connection: Connection, wanted: JobFilter, limit: int | None) -> int:
    found = union_all(*(_ids(t, wanted, limit, None) for t in _tables(wanted))).subquery()
    count: int = (
        await _fetch(connection, select(func.count()).select_from(select(found.c.id).limit(limit).subquery()))
    )[0][0]
    return count


@asynccontextmanager
async def _free(connection: Connection, timeout: str) -> AsyncIterator[None]:
    """A transaction for free filters: the planner methods that the role switches off for the hot statements are on."""
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(
                "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on; "
                f"SET LOCAL enable_bitmapscan = on; SET LOCAL statement_timeout = '{timeout}'"
            )
            yield
    except asyncpg.QueryCanceledError:
        raise Invalid(Fault("", "This search takes too long. Narrow it by status, type, queue or time.")) from None


def _tables(wanted: JobFilter) -> list[Table]:
    tables = []
    if not wanted.statuses or any(s != Status.COMPLETED for s in wanted.statuses):
        tables.append(jobs)
    if not wanted.statuses or Status.COMPLETED in wanted.statuses:
        tables.append(jobs_done)
    return tables


def _rows(table: Table, wanted: JobFilter, before: UUID | None, limit: int) -> Select[Any]:
    if table is jobs:
        own = [jobs.c.status, jobs.c.cancel_reason, jobs.c.updated_at, cast(null(), JSONB).label("result")]
        own.append(jobs.c.cancel_requested_at.is_not(None).label("cancel_requested"))
    else:
        own = [
            literal(Status.COMPLETED.value, literal_execute=True).label("status"),
            null().label("cancel_reason"),
            jobs_done.c.finished_at.label("updated_at"),
            jobs_done.c.result,
            literal_column("false").label("cancel_requested"),
        ]
    found = _matching(table, wanted, [*(table.c[name] for name in _SHARED), *own], before)
    return select(found.order_by(found.selected_columns.id.desc()).limit(limit).subquery())


def _ids(table: Table, wanted: JobFilter, limit: int | None, before: UUID | None) -> Select[Any]:
    found = _matching(table, wanted, [table.c.id], before)
    return select(found.order_by(found.selected_columns.id.desc()).limit(limit).subquery())


def _matching(table: Table, wanted: JobFilter, columns: list[Any], before: UUID | None) -> Select[Any]:
    c = table.c
    found = select(*columns)
    if table is jobs and wanted.statuses:
        # Literals: the planner proves a partial index only from them.
        live = [literal(s, literal_execute=True) for s in wanted.statuses if s != Status.COMPLETED]
        found = found.where(or_(*(c.status == s for s in live)) if len(live) > 1 else c.status == live[0])
    if wanted.type is not None:
        found = found.where(c.type == wanted.type)
    if wanted.queue is not None:
        found = found.where(c.queue == wanted.queue)
    if wanted.tag is not None:
        found = found.where(and_(c.tags != literal_column("'{}'"), c.tags.contains(literal([wanted.tag], ARRAY(Text)))))
    # The bounds on the id, which has an index and names the partitions, are a little wider than those on the time: the id
    # was made by another clock.
    if wanted.created_after is not None:
        found = found.where(c.created_at >= wanted.created_after, c.id >= _id_at(wanted.created_after, -CLOCKS))
    if wanted.created_before is not None:
        found = found.where(c.created_at < wanted.created_before, c.id < _id_at(wanted.created_before, CLOCKS))
    if before is not None:
        found = found.where(c.id < before)
    return _searched(table, wanted, found) if wanted.searches else found


def _id_at(moment: datetime, offset: float) -> UUID:
    """The lowest UUIDv7 of a moment, ``offset`` seconds later."""
    millis = int((moment.timestamp() + offset) * 1000)
    return UUID(int=min(max(millis, 0), 2**48 - 1) << 80)


def _searched(table: Table, wanted: JobFilter, found: Select[Any]) -> Select[Any]:
    window = found.order_by(table.c.id.desc()).limit(SEARCHED)
    needed = [table.c.error_type, table.c.error_message, table.c.payload]
    have = set(window.selected_columns.keys())
    rows = window.add_columns(*(column for column in needed if column.name not in have)).subquery()
    hits = select(*(rows.c[name] for name in found.selected_columns.keys()))  # noqa: SIM118  (a column collection)
    if wanted.error is not None:
        message = func.concat(rows.c.error_type, ": ", rows.c.error_message)
        hits = hits.where(rows.c.error_type.is_not(None), func.strpos(func.lower(message), wanted.error.lower()) > 0)
    for path, value in wanted.payload:
        hits = hits.where(rows.c.payload.op("#>>")(literal(list(path), ARRAY(Text))) == value)
    return hits


async def _fetch(connection: Connection, query: Select[Any]) -> list[asyncpg.Record]:
    compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return await connection.fetch(str(compiled), *values)
