"""Lists of jobs with free filters, newest first, over the live and the done table.

An id is a UUIDv7, so its order is the order of creation and a page begins below an id. Text search and payload filters
look at the newest rows of the other filters' result only, and say so. SQLAlchemy writes one statement for each shape of a
filter, once: that costs milliseconds, and open pages ask the same thing every second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import (
    Integer,
    Select,
    Table,
    Uuid,
    and_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
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
    after: UUID | None = None,
) -> Page:
    """The page below ``before``, or the one just above ``after``."""
    parts = {"before": before, "after": after, "exact": EXACT + 1}
    parts |= {"rows": limit + offset + 1, "limit": limit + 1, "offset": offset}
    found = await _fetch(connection, "page", wanted, f"{TIMEOUT_MS}ms", parts)
    count = found[0]["matching"]
    rows = [row for row in found if row["id"] is not None]
    items = [build(row) for row in rows[:limit]][:: 1 if after is None else -1]
    return Page(
        items=items,
        next=items[-1].id if items and (after is not None or len(rows) > limit) else None,
        total=min(count, EXACT),
        capped=count > EXACT,
        searched=SEARCHED if wanted.searches else None,
    )


async def find_ids(connection: Connection, wanted: JobFilter, limit: int, before: UUID | None) -> list[UUID]:
    """Ids of matching jobs, newest first."""
    rows = await _fetch(connection, "ids", wanted, "10s", {"before": before, "limit": limit})
    return [row[0] for row in rows]


async def count_matching(connection: Connection, wanted: JobFilter) -> int:
    rows = await _fetch(connection, "count", wanted, "10s", {})
    count: int = rows[0][0]
    return count


async def _fetch(
    connection: Connection, what: What, wanted: JobFilter, timeout: str, parts: dict[str, Any]
) -> list[asyncpg.Record]:
    """``parts``: values of the statement that are not the filter's."""
    text, names = _statement(what, _shape(wanted, parts))
    values = parts | _values(wanted)
    async with _free(connection, timeout):
        return await connection.fetch(text, *[values[name] for name in names])


@asynccontextmanager
async def _free(connection: Connection, timeout: str) -> AsyncIterator[None]:
    """A transaction for free filters: the planner methods that the role switches off for the hot statements are on."""
    try:
        # By hand, for it saves a round trip of three; what only read may as well be rolled back.
        await connection.execute(
            "BEGIN READ ONLY; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on; "
            f"SET LOCAL enable_bitmapscan = on; SET LOCAL statement_timeout = '{timeout}'"
        )
        try:
            yield
        finally:
            await connection.execute("ROLLBACK")
    except asyncpg.QueryCanceledError:
        raise Invalid(Fault("", "This search takes too long. Narrow it by status, type, queue or time.")) from None


# ---- from a filter to a statement ---------------------------------------------------------------------------------------

What = Literal["page", "ids", "count"]


class _Shape(NamedTuple):
    """All of a filter that its statement's text depends on; the names are those of bound values."""

    statuses: tuple[str, ...]
    given: frozenset[str]
    paths: int  # payload filters


def _shape(wanted: JobFilter, parts: dict[str, Any]) -> _Shape:
    names = ("type", "queue", "tag", "created_after", "created_before", "error")
    given = [name for name in names if getattr(wanted, name) is not None]
    given += [name for name in ("before", "after") if parts.get(name) is not None]
    return _Shape(wanted.statuses, frozenset(given), len(wanted.payload))


def _values(wanted: JobFilter) -> dict[str, Any]:
    """Of the filter's parameters. The bounds on the id are wider than those on the time: another clock made the id."""
    values: dict[str, Any] = {"type": wanted.type, "queue": wanted.queue, "tag": [wanted.tag], "searched": SEARCHED}
    if wanted.created_after is not None:
        values |= {"created_after": wanted.created_after, "from_id": _id_at(wanted.created_after, -CLOCKS)}
    if wanted.created_before is not None:
        values |= {"created_before": wanted.created_before, "to_id": _id_at(wanted.created_before, CLOCKS)}
    if wanted.error is not None:
        values["error"] = wanted.error.lower()
    for n, (path, value) in enumerate(wanted.payload):
        values |= {f"path_{n}": list(path), f"value_{n}": value}
    return values


def _id_at(moment: datetime, offset: float) -> UUID:
    """The lowest UUIDv7 of a moment, ``offset`` seconds later."""
    millis = int((moment.timestamp() + offset) * 1000)
    return UUID(int=min(max(millis, 0), 2**48 - 1) << 80)


@lru_cache(maxsize=512)
def _statement(what: What, shape: _Shape) -> tuple[str, tuple[str, ...]]:
    """The text, and the names of its values in their order."""
    query = {"page": _page, "ids": _listed_ids, "count": _count}[what](shape)
    compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return str(compiled), tuple(compiled.positiontup or ())


def _page(shape: _Shape) -> Select[Any]:
    """One read for both, the page and how many match in all: each row has the number, which comes without rows, too."""
    counted = _count(shape, _number("exact")).subquery()
    rows = union_all(*(_rows(t, shape) for t in _tables(shape))).subquery()
    page = (
        select(rows).order_by(_ordered(rows.c.id, shape)).limit(_number("limit")).offset(_number("offset")).subquery()
    )
    both = counted.outerjoin(page, true())
    return select(counted.c.matching, page).select_from(both).order_by(_ordered(page.c.id, shape))


def _ordered(id: Any, shape: _Shape) -> Any:
    return id.asc() if "after" in shape.given else id.desc()


def _listed_ids(shape: _Shape) -> Select[Any]:
    found = union_all(*(_ids(t, shape, _number("limit")) for t in _tables(shape))).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(_number("limit"))


def _count(shape: _Shape, limit: Any = None) -> Select[Any]:
    everywhere = shape._replace(given=shape.given - {"before", "after"})
    found = union_all(*(_ids(t, everywhere, limit) for t in _tables(shape))).subquery()
    return select(func.count().label("matching")).select_from(select(found.c.id).limit(limit).subquery())


def _bound(name: str, kind: Any) -> Any:
    """A value that is given when the statement is sent."""
    return bindparam(name, type_=kind, required=False)


def _number(name: str) -> Any:
    return _bound(name, Integer)


def _tables(shape: _Shape) -> list[Table]:
    tables = []
    if not shape.statuses or any(s != Status.COMPLETED for s in shape.statuses):
        tables.append(jobs)
    if not shape.statuses or Status.COMPLETED in shape.statuses:
        tables.append(jobs_done)
    return tables


def _rows(table: Table, shape: _Shape) -> Select[Any]:
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
    found = _matching(table, shape, [*(table.c[name] for name in _SHARED), *own])
    return select(found.order_by(_ordered(found.selected_columns.id, shape)).limit(_number("rows")).subquery())


def _ids(table: Table, shape: _Shape, limit: Any) -> Select[Any]:
    found = _matching(table, shape, [table.c.id])
    return select(found.order_by(found.selected_columns.id.desc()).limit(limit).subquery())


def _matching(table: Table, shape: _Shape, columns: list[Any]) -> Select[Any]:
    c = table.c
    found = select(*columns)
    if table is jobs and shape.statuses:
        # Literals: the planner proves a partial index only from them.
        live = [literal(s, literal_execute=True) for s in shape.statuses if s != Status.COMPLETED]
        found = found.where(or_(*(c.status == s for s in live)) if len(live) > 1 else c.status == live[0])
    conditions = {
        "type": c.type == _bound("type", Text),
        "queue": c.queue == _bound("queue", Text),
        "tag": and_(c.tags != literal_column("'{}'"), c.tags.contains(_bound("tag", ARRAY(Text)))),
        # The id has an index and names the partitions.
        "created_after": and_(
            c.created_at >= _bound("created_after", c.created_at.type), c.id >= _bound("from_id", Uuid)
        ),
        "created_before": and_(
            c.created_at < _bound("created_before", c.created_at.type), c.id < _bound("to_id", Uuid)
        ),
        "before": c.id < _bound("before", Uuid),
        "after": c.id > _bound("after", Uuid),
    }
    found = found.where(*(condition for name, condition in conditions.items() if name in shape.given))
    return _searched(table, shape, found) if shape.paths or "error" in shape.given else found


def _searched(table: Table, shape: _Shape, found: Select[Any]) -> Select[Any]:
    window = found.order_by(table.c.id.desc()).limit(_number("searched"))
    needed = [table.c.error_type, table.c.error_message, table.c.payload]
    have = set(window.selected_columns.keys())
    rows = window.add_columns(*(column for column in needed if column.name not in have)).subquery()
    hits = select(*(rows.c[name] for name in found.selected_columns.keys()))  # noqa: SIM118  (a column collection)
    if "error" in shape.given:
        message = func.lower(func.concat(rows.c.error_type, literal_column("': '"), rows.c.error_message))
        found_in = func.strpos(message, _bound("error", Text)) > literal_column("0")
        hits = hits.where(rows.c.error_type.is_not(None), found_in)
    for n in range(shape.paths):
        at = rows.c.payload.op("#>>")(_bound(f"path_{n}", ARRAY(Text)))
        hits = hits.where(at == _bound(f"value_{n}", Text))
    return hits
