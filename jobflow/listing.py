"""Lists of jobs with free filters, newest first, over the live and the done table.

An id is a UUIDv7, so its order is the order of creation and a page begins below an id. Text search and payload filters
look at the newest rows of the other filters' result only, and say so; so does a tag that very many jobs have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from jobflow.errors import Fault, Invalid
from jobflow.kinds import GROUPS, Shape
from jobflow.lifecycle import Job, Status
from jobflow.pool import Connection
from jobflow.selection import What, statement

EXACT = 10_000  # totals are exact up to here
SEARCHED = 100_000  # newest rows that a text or payload filter looks at
COMMON = 5_000  # jobs with a tag that are looked through for other filters; more when it is the only one
BROWSED = 20_000  # newest rows that are looked at instead for a tag that more jobs have
FAR = 1_000  # rows before a page from which on it is worth a look how far down it is
ALL = 2**31 - 1  # more than there can be
TIMEOUT_MS = 2_000
# Seconds by which the time in an id may differ from created_at: by the clocks of hosts, or a transaction that was long open
# when it enqueued. All rows of this time are read at each end of a range, so it is no longer than it must be.
CLOCKS = 60.0
EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# By the generic plan: lists go by the same indexes under both, and planning one anew may take longer than reading it.
BEGIN = "BEGIN READ ONLY; SET LOCAL plan_cache_mode = force_generic_plan;"


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


class Page(msgspec.Struct, kw_only=True):
    """``next``: the id below which the next page begins. ``capped``: there are more than ``total``.

    ``searched``: how many of the newest rows were looked at, None when nothing was left out.
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
    shape = _shape(wanted, before, after, offset)
    values = _values(wanted, before, after) | {"rows": limit + offset + 1, "limit": limit + 1, "offset": offset}
    found = await _fetch(connection, "page", wanted, shape, values, f"{TIMEOUT_MS}ms")
    rows = [row for row in found if row["id"] is not None]
    full = len(rows) > limit
    items = [build(row) for row in rows[:limit]][:: 1 if after is None else -1]
    browsed = found[0]["browsed"] and not (full and shape.only_tag)
    return Page(
        items=items,
        next=items[-1].id if items and (after is not None or full) else None,
        total=min(found[0]["matching"], EXACT),
        capped=found[0]["matching"] > EXACT,
        searched=values["window"] if shape.searches or browsed else None,
    )


async def find_ids(connection: Connection, wanted: JobFilter, limit: int, before: UUID | None) -> list[UUID]:
    """Ids of matching jobs, newest first."""
    shape = _shape(wanted, before)
    values = _values(wanted, before) | _unbounded(shape) | {"rows": limit}
    rows = await _fetch(connection, "ids", wanted, shape, values, "10s")
    return [row[0] for row in rows]


async def count_matching(connection: Connection, wanted: JobFilter) -> int:
    shape = _shape(wanted)
    rows = await _fetch(connection, "count", wanted, shape, _values(wanted) | _unbounded(shape), "10s")
    count: int = rows[0][0]
    return count


def _unbounded(shape: Shape) -> dict[str, Any]:
    """What a redrive matches is never capped, but by a search."""
    return {"exact": None} | ({} if shape.searches else {"window": ALL})


async def _fetch(
    connection: Connection, what: What, wanted: JobFilter, shape: Shape, values: Mapping[str, Any], timeout: str
) -> list[asyncpg.Record]:
    text, names = statement(what, shape)
    async with _free(connection, wanted, timeout):
        return await connection.fetch(text, *[values[name] for name in names])


@asynccontextmanager
async def _free(connection: Connection, wanted: JobFilter, timeout: str) -> AsyncIterator[None]:
    """A transaction with a time limit. The index of tags can be read as a bitmap only, which the role switches off.

    Sorting is off then, so that what is wanted in order is still read in order and not as a bitmap, too.
    """
    try:
        # By hand, for it saves a round trip of three; what only read may as well be rolled back.
        by_tag = "" if wanted.tag is None else "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = off;"
        await connection.execute(f"{BEGIN} SET LOCAL statement_timeout = '{timeout}'; {by_tag}")
        try:
            yield
        finally:
            await connection.execute("ROLLBACK")
    except asyncpg.QueryCanceledError:
        raise Invalid(Fault("", "This search takes too long. Narrow it by status, type, queue or time.")) from None


def _shape(wanted: JobFilter, before: UUID | None = None, after: UUID | None = None, offset: int = 0) -> Shape:
    """Alike for as many lists as can be: Python writes the statement of each, and every connection plans it."""
    given = {name for name in ("type", "queue", "tag", "error") if getattr(wanted, name) is not None}
    given |= {"status"} if wanted.statuses else set()
    given |= {"time"} if wanted.created_after or wanted.created_before else set()
    groups = frozenset(GROUPS.get(status, "resting") for status in wanted.statuses or Status)
    shape = Shape(frozenset(given), groups, len(wanted.payload), upwards=after is not None)
    far = offset >= FAR and after is None and "done" in groups and shape.merges and not shape.looks
    return shape._replace(turned=before != after and shape.looks, far=far)


def _values(wanted: JobFilter, before: UUID | None = None, after: UUID | None = None) -> dict[str, Any]:
    """Of the filter's parameters. The bounds on the id are wider than those on the time: another clock made the id."""
    values: dict[str, Any] = {
        "type": wanted.type,
        "queue": wanted.queue,
        "tag": [wanted.tag],
        "statuses": list(wanted.statuses),
    }
    shape = _shape(wanted, before, after)
    values |= {
        "exact": EXACT + 1,
        "many": (EXACT if shape.only_tag else COMMON) + 1,
        "window": SEARCHED if shape.searches else BROWSED,
    }
    values |= {"first": UUID(int=0), "last": UUID(int=2**128 - 1)}
    values |= {"created_after": wanted.created_after or EVER[0], "created_before": wanted.created_before or EVER[1]}
    if wanted.created_after is not None:
        values["first"] = _id_at(wanted.created_after, -CLOCKS)
    if wanted.created_before is not None:
        values["last"] = _id_at(wanted.created_before, CLOCKS)
    values["low"] = values["first"] if after is None else max(values["first"], UUID(int=after.int + 1))
    values["high"] = values["last"] if before is None else min(values["last"], before)
    for low, high in (("first", "last"), ("low", "high")):  # between these the id leaves no doubt about the time
        sure = max(values[low], UUID(int=0) if wanted.created_after is None else _id_at(wanted.created_after, CLOCKS))
        values[f"{low}_sure"] = min(sure, max(values[low], values[high]))
        sure = values[high] if wanted.created_before is None else _id_at(wanted.created_before, -CLOCKS)
        values[f"{high}_sure"] = max(values[f"{low}_sure"], min(sure, values[high]))
    if wanted.error is not None:
        values["error"] = wanted.error.lower()
    for n, (path, value) in enumerate(wanted.payload):
        values |= {f"path_{n}": list(path), f"value_{n}": value}
    return values


def _id_at(moment: datetime, offset: float) -> UUID:
    """The lowest UUIDv7 of a moment, ``offset`` seconds later."""
    millis = int((moment.timestamp() + offset) * 1000)
    return UUID(int=min(max(millis, 0), 2**48 - 1) << 80)
