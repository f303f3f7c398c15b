"""The kinds of jobs, and the newest ids of each.

Jobs are of one *kind* when they are alike in what their table's indexes have before the id: status, queue and type. The
newest rows of a kind are read in order, and no others; a list merges the kinds that its filter names. The place in a kind
is written as a comparison of rows, since only that kind's index gives their order, whatever Postgres believes about the
table: with plain equations it may prefer to walk along all ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Integer,
    Select,
    Table,
    Uuid,
    any_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from jobflow.lifecycle import Status
from jobflow.tables import jobs, jobs_done, queues

# Where the jobs of a status are found; those of all others are resting.
GROUPS: dict[str, str] = {Status.PROCESSING: "running", Status.COMPLETED: "done"}
_KIND = (jobs.c.status, jobs.c.queue, jobs.c.type)
# Running jobs are few and have an index of their own. A literal, for the planner proves a partial index only from literals;
# '' on purpose, as in that index: what is written without it is true of other statements, too, which must not go by it.
RUNNING = literal(Status.PROCESSING.value, literal_execute=True)
RUNS, RESTS = jobs.c.status == RUNNING, literal_column("''").op("||")(jobs.c.status) != RUNNING
ONE: Any = literal_column("1")


class Shape(NamedTuple):
    """All of a filter that its statement's text depends on."""

    given: frozenset[str]  # names of filters; "time" for both ends
    wanted: frozenset[str] = frozenset({"resting", "running", "done"})  # groups of statuses
    paths: int = 0  # payload filters
    turned: bool = False  # not the first page, where it makes a difference
    upwards: bool = False  # the page above an id
    far: bool = False  # a page that begins far down, where it makes a difference

    @property
    def searches(self) -> bool:
        return bool(self.paths) or "error" in self.given

    @property
    def only_tag(self) -> bool:
        return self.given == {"tag"} and not self.paths

    @property
    def looks(self) -> bool:
        """At rows, for no index has what is wanted."""
        return self.searches or ("tag" in self.given and not self.only_tag)

    @property
    def merges(self) -> bool:
        """The completed jobs of a type, of all queues: no index has them in one order."""
        return "type" in self.given and "queue" not in self.given


class Part(NamedTuple):
    """Which rows of each kind: ids from ``low`` to below ``high``, ``limit`` at most; names of bound values."""

    low: str
    high: str
    limit: str
    upwards: bool = False
    sure: bool = False  # that their time is as wanted

    def order(self, *columns: Any) -> list[Any]:
        return [column.asc() if self.upwards else column.desc() for column in columns]


def bound_text(name: str) -> Any:
    return bindparam(name, type_=Text, required=False)


def bound_id(name: str) -> Any:
    return bindparam(name, type_=Uuid, required=False)


def bound_number(name: str) -> Any:
    return bindparam(name, type_=Integer, required=False)


_BY_QUEUE = {jobs_done.c.type: bound_text("type"), jobs_done.c.queue: queues.c.name}


def one_kind(shape: Shape, table: Table) -> dict[Any, Any] | None:
    """The columns before the id in the index that has all that match in order, and their values. None: there is none."""
    if table is jobs:
        return None if shape.given & {"status", "queue", "type"} else {}
    if shape.merges:
        return None
    return {table.c[name]: bound_text(name) for name in ("type", "queue") if name in shape.given}


def indexed(shape: Shape, table: Table, part: Part) -> list[Select[Any]]:
    """Selects of the ids of jobs by status, queue and type, and from when to when."""
    parts, kind = _in_time(shape, part), one_kind(shape, table)
    if kind is not None:
        return [newest(shape, table, within, kind) for within in parts]
    floor = select(_floor(shape, part).c.id).scalar_subquery() if shape.far and part.limit == "rows" else None
    if table is jobs_done:
        every = [newest(shape, table, within, _BY_QUEUE, floor=floor).lateral() for within in parts]
        return [select(rows).join_from(queues, rows, true()) for rows in every]
    selects: list[Select[Any]] = []
    kinds = _kinds()
    if "resting" in shape.wanted:
        kind = dict(zip(_KIND, kinds.c, strict=True))
        every = [newest(shape, table, within, kind, floor=floor).where(RESTS).lateral() for within in parts]
        selects += [select(rows).join_from(kinds, rows, true()).where(*filtered(shape, kinds)) for rows in every]
    return selects + ([_running(shape, part)] if "running" in shape.wanted else [])


def _in_time(shape: Shape, part: Part) -> list[Part]:
    """A part by its ends, where the id leaves the time open, and all between: there the index has all that is needed."""
    if "time" not in shape.given:
        return [part]
    low, high = f"{part.low}_sure", f"{part.high}_sure"
    return [part._replace(low=high), part._replace(low=low, high=high, sure=True), part._replace(high=low)]


@cache
def _floor(shape: Shape, part: Part) -> CTE:
    """An id above which four queues have a quarter of the rows each, all of the type that is wanted, or NULL: what is below
    need not be read and sorted."""
    sure = next((within for within in _in_time(shape, part) if within.sure), part)
    last = (
        newest(shape, jobs_done, sure, _BY_QUEUE)
        .limit(ONE)
        .offset(bound_number("rows") // literal_column("4"))
        .lateral()
    )
    lasts = select(last.c.id).join_from(queues, last, true()).subquery()
    fourth = select(lasts.c.id).order_by(lasts.c.id.desc()).offset(literal_column("3")).limit(ONE)
    return fourth.cte("floor")


def newest(
    shape: Shape, table: Table, part: Part, kind: dict[Any, Any], columns: Sequence[Any] = (), floor: Any = None
) -> Select[Any]:
    """Of one kind: ``kind`` has the columns that come before the id in its index, and their values. floor: the lowest id."""
    place = tuple_(*kind, table.c.id)
    lowest = bound_id(part.low) if floor is None else func.greatest(bound_id(part.low), floor)
    low, high = tuple_(*kind.values(), lowest), tuple_(*kind.values(), bound_id(part.high))
    found = select(*(columns or (table.c.id,))).where(place >= low, place < high)
    found = found if part.sure else found.where(*_created(shape, table.c))
    return found.order_by(*part.order(*kind, table.c.id)).limit(bound_number(part.limit))


@cache
def _kinds() -> CTE:
    """Which kinds of jobs there are that do not run: from each the index leads to the next. Downwards, for what died and
    was not yet swept away is at the oldest end of a kind.
    """
    down = [column.desc() for column in _KIND]
    last = select(*_KIND).where(RESTS).order_by(*down).limit(ONE).cte("kinds", recursive=True)
    following = select(*_KIND).where(RESTS, tuple_(*_KIND) < tuple_(*last.c)).order_by(*down).limit(ONE).lateral()
    return last.union_all(select(following).join_from(last, following, true()))


def _running(shape: Shape, part: Part) -> Select[Any]:
    # OFFSET hides the order from the planner, which else may walk along all ids to find the few that run.
    columns = (jobs.c.id, jobs.c.queue, jobs.c.type, jobs.c.status, jobs.c.created_at)
    every = select(*columns).where(RUNS).offset(literal_column("0")).subquery()
    found = select(every.c.id).where(*filtered(shape, every, part))
    return found.order_by(*part.order(every.c.id)).limit(bound_number(part.limit))


def filtered(shape: Shape, rows: Any, part: Part | None = None) -> list[Any]:
    """Conditions on rows that no index serves; with ``part`` on their time, too."""
    c = rows.c
    found = [c[name] == bound_text(name) for name in ("queue", "type") if name in shape.given]
    if "status" in shape.given and "status" in c:
        found.append(c.status == any_(bindparam("statuses", type_=ARRAY(Text), required=False)))
    if part is not None:
        found += [c.id >= bound_id(part.low), c.id < bound_id(part.high), *_created(shape, c)]
    return found


def _created(shape: Shape, c: Any) -> list[Any]:
    after, before = (
        bindparam(f"created_{word}", type_=c.created_at.type, required=False) for word in ("after", "before")
    )
    return [c.created_at >= after, c.created_at < before] if "time" in shape.given else []


def union(selects: list[Any]) -> Any:
    return union_all(*selects) if len(selects) > 1 else selects[0]
