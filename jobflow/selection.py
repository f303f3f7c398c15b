"""The statements of lists: one for each shape of a filter, written once by SQLAlchemy.

Jobs are of one *kind* when they are alike in what their table's indexes have before the id: status, queue and type. The
newest rows of a kind are read in order, and no others; a list merges the kinds that its filter names. The place in a kind
is written as a comparison of rows, since only that kind's index gives their order, whatever Postgres believes about the
table: with plain equations it may prefer to walk along all ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    CTE,
    Integer,
    Select,
    Table,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import Text

from jobflow.lifecycle import Status
from jobflow.tables import jobs, jobs_done, queues

What = Literal["page", "ids", "count"]

_SHARED = (
    "id type queue priority payload attempt max_attempts run_at timeout expires_at unique_key tags error_type "
    "error_message rescues run_epoch locked_by batch schedule trace_id created_at started_at finished_at"
).split()
# Where the jobs of a status are found; those of all others are resting.
GROUPS: dict[str, str] = {Status.PROCESSING: "running", Status.COMPLETED: "done"}
_DIALECT = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
_KIND = (jobs.c.status, jobs.c.queue, jobs.c.type)
# Running jobs are few and have an index of their own. A literal, for the planner proves a partial index only from literals;
# '' on purpose, as in that index: what is written without it is true of other statements, too, which must not go by it.
_RUNNING = literal(Status.PROCESSING.value, literal_execute=True)
_RUNS, _RESTS = jobs.c.status == _RUNNING, literal_column("''").op("||")(jobs.c.status) != _RUNNING
_ONE: Any = literal_column("1")


class Shape(NamedTuple):
    """All of a filter that its statement's text depends on."""

    given: frozenset[str]  # names of filters
    wanted: frozenset[str] = frozenset({"resting", "running", "done"})  # groups of statuses
    paths: int = 0  # payload filters
    turned: bool = False  # not the first page
    upwards: bool = False  # the page above an id

    @property
    def searches(self) -> bool:
        return bool(self.paths) or "error" in self.given

    @property
    def only_tag(self) -> bool:
        return self.given == {"tag"} and not self.paths


class _Part(NamedTuple):
    """Which rows of each kind: ids from ``low`` to below ``high``, ``limit`` at most; names of bound values."""

    low: str
    high: str
    limit: str
    upwards: bool = False
    sure: bool = False  # that their time is as wanted

    def order(self, *columns: Any) -> list[Any]:
        return [column.asc() if self.upwards else column.desc() for column in columns]


_ALL = _Part("first", "last", "exact")


@lru_cache(maxsize=512)
def statement(what: What, shape: Shape) -> tuple[str, tuple[str, ...]]:
    """The text, and the names of its values in their order. Each names its tables' columns as a Job has them.

    Values: those of the filter; ``first`` and ``last``: ids that bound it; ``low`` and ``high``: those that bound the page;
    ``exact``: rows to count; ``many``: jobs with a tag from which on its index is of no use; ``window``: rows looked at
    where no index serves; ``rows``, ``limit`` and ``offset`` of the page.
    """
    query = {"page": _page, "ids": _ids, "count": _count}[what](shape)
    compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return str(compiled), tuple(compiled.positiontup or ())


def _page(shape: Shape) -> Select[Any]:
    """One read for both, the page and how many match in all: each row has the number, which comes without rows, too.

    ``browsed``: whether only the newest rows were looked at for a tag.
    """
    part = _Part("low", "high", "rows", shape.upwards)
    counted: Select[Any]
    looks = shape.searches or ("tag" in shape.given and not shape.only_tag)
    if looks and not shape.turned:  # what is expensive is done once
        ids = _union(_found(shape, _ALL._replace(limit="window"))).cte("found").prefix_with("MATERIALIZED")
        counted = _counted(ids)
    else:
        ids = _union(_found(shape, part)).subquery()
        counted = _count(shape)
        if shape.only_tag:
            counted = _counted(_tagged(shape))
    page = (
        select(ids.c.id).order_by(*part.order(ids.c.id)).limit(_number("limit")).offset(_number("offset")).cte("page")
    )
    # LIMIT, so that each is fetched by its id, even while the table seems empty.
    fetched = [_columns(t).where(t.c.id == page.c.id).limit(_ONE).lateral() for t in _tables(shape)]
    rows = _union([select(one).join_from(page, one, true()) for one in fetched]).subquery()
    browsed = _many(shape) if "tag" in shape.given else literal_column("false")
    matching = counted.subquery()
    both = matching.outerjoin(rows, true())
    return (
        select(matching.c.matching, browsed.label("browsed"), rows).select_from(both).order_by(*part.order(rows.c.id))
    )


def _ids(shape: Shape) -> Select[Any]:
    part = _Part("low", "high", "rows")
    found = _union(_found(shape, part)).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(_number("rows"))


def _count(shape: Shape) -> Select[Any]:
    return _counted(_union(_found(shape, _ALL)).subquery())


def _counted(ids: Any) -> Select[Any]:
    return select(func.count().label("matching")).select_from(select(ids.c.id).limit(_number("exact")).subquery())


def _tables(shape: Shape) -> list[Table]:
    live, done = shape.wanted & {"resting", "running"}, "done" in shape.wanted
    return [*([jobs] if live else []), *([jobs_done] if done else [])]


def _columns(table: Table) -> Select[Any]:
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
    return select(*(table.c[name] for name in _SHARED), *own)


# ---- which ids match ----------------------------------------------------------------------------------------------------


def _found(shape: Shape, part: _Part) -> list[Select[Any]]:
    """Selects of the ids that match: together they have at least the first ``part.limit`` ones."""
    if "tag" in shape.given:
        # Those with the tag while they are not too many, else those among the newest of each table.
        tagged = _tagged(shape)
        few = select(tagged.c.id).where(*_filtered(shape, tagged, part), *_searched(shape, tagged), ~_many(shape))
        return [_first(part, select_) for select_ in (few, *(_browsed(shape, t, part) for t in _tables(shape)))]
    if shape.searches:
        return [_first(part, _in_window(shape, t, part._replace(limit="window"))) for t in _tables(shape)]
    return [select_ for table in _tables(shape) for select_ in _indexed(shape, table, part)]


def _first(part: _Part, found: Select[Any]) -> Select[Any]:
    return select(found.order_by(*part.order(found.selected_columns.id)).limit(_number(part.limit)).subquery())


def _browsed(shape: Shape, table: Table, part: _Part) -> Select[Any]:
    """With a tag that too many have."""
    columns = [*_looked_at(shape, table), table.c.tags]
    newest = _newest(shape, table, part._replace(limit="window"), {}, columns).subquery()
    conditions = [*_filtered(shape, newest), *_has_tag(newest.c), *_searched(shape, newest)]
    return select(newest.c.id).where(_many(shape), *conditions)


def _in_window(shape: Shape, table: Table, window: _Part) -> Select[Any]:
    """Of the newest rows of the other filters' result those that have what is searched for."""
    kind = _one_kind(shape, table)
    if kind is not None:
        row = _newest(shape, table, window, kind, _looked_at(shape, table)).subquery()
        return select(row.c.id).where(*_searched(shape, row))
    found = _union(_indexed(shape, table, window)).subquery()
    ids = select(found.c.id).order_by(*window.order(found.c.id)).limit(_number("window")).subquery()
    rows = select(*_looked_at(shape, table)).where(table.c.id == ids.c.id).limit(_ONE).lateral()
    return select(rows.c.id).join_from(ids, rows, true()).where(*_searched(shape, rows))


def _one_kind(shape: Shape, table: Table) -> dict[Any, Any] | None:
    """The columns before the id in the index that has all that match in order, and their values. None: there is none."""
    if table is jobs:
        return None if shape.given & {"status", "queue", "type"} else {}
    if "type" in shape.given and "queue" not in shape.given:
        return None
    return {table.c[name]: _text(name) for name in ("type", "queue") if name in shape.given}


def _indexed(shape: Shape, table: Table, part: _Part) -> list[Select[Any]]:
    """Selects of the ids of jobs by status, queue and type, and from when to when."""
    parts, kind = _in_time(shape, part), _one_kind(shape, table)
    if kind is not None:
        return [_newest(shape, table, within, kind) for within in parts]
    if table is jobs_done:
        kind = {table.c.type: _text("type"), table.c.queue: queues.c.name}
        every = [_newest(shape, table, within, kind).lateral() for within in parts]
        return [select(rows).join_from(queues, rows, true()) for rows in every]
    selects, kinds = [], _kinds()
    if "resting" in shape.wanted:
        kind = dict(zip(_KIND, kinds.c, strict=True))
        every = [_newest(shape, table, within, kind).where(_RESTS).lateral() for within in parts]
        selects += [select(rows).join_from(kinds, rows, true()).where(*_filtered(shape, kinds)) for rows in every]
    return selects + ([_running(shape, part)] if "running" in shape.wanted else [])


def _in_time(shape: Shape, part: _Part) -> list[_Part]:
    """A part by its ends, where the id leaves the time open, and all between: there the index has all that is needed."""
    if not shape.given & {"created_after", "created_before"}:
        return [part]
    low, high = f"{part.low}_sure", f"{part.high}_sure"
    return [part._replace(low=high), part._replace(low=low, high=high, sure=True), part._replace(high=low)]


def _newest(shape: Shape, table: Table, part: _Part, kind: dict[Any, Any], columns: Sequence[Any] = ()) -> Select[Any]:
    """Of one kind: ``kind`` has the columns that come before the id in its index, and their values."""
    place = tuple_(*kind, table.c.id)
    low, high = tuple_(*kind.values(), _id(part.low)), tuple_(*kind.values(), _id(part.high))
    found = select(*(columns or (table.c.id,))).where(place >= low, place < high)
    found = found if part.sure else found.where(*_created(shape, table.c))
    return found.order_by(*part.order(*kind, table.c.id)).limit(_number(part.limit))


@cache
def _kinds() -> CTE:
    """Which kinds of jobs there are that do not run: from each the index leads to the next. Downwards, for what died and
    was not yet swept away is at the oldest end of a kind.
    """
    down = [column.desc() for column in _KIND]
    last = select(*_KIND).where(_RESTS).order_by(*down).limit(_ONE).cte("kinds", recursive=True)
    following = select(*_KIND).where(_RESTS, tuple_(*_KIND) < tuple_(*last.c)).order_by(*down).limit(_ONE).lateral()
    return last.union_all(select(following).join_from(last, following, true()))


def _running(shape: Shape, part: _Part) -> Select[Any]:
    # OFFSET hides the order from the planner, which else may walk along all ids to find the few that run.
    columns = (jobs.c.id, jobs.c.queue, jobs.c.type, jobs.c.status, jobs.c.created_at)
    every = select(*columns).where(_RUNS).offset(literal_column("0")).subquery()
    found = select(every.c.id).where(*_filtered(shape, every, part))
    return found.order_by(*part.order(every.c.id)).limit(_number(part.limit))


@cache
def _tagged(shape: Shape) -> CTE:
    """Jobs with the tag, in no order, until there are too many. Nothing here but the tag has an index that could serve."""
    selects = []
    for table in _tables(shape):
        columns = _looked_at(shape, table)
        found = select(*columns).where(*_has_tag(table.c))
        if table is jobs:
            running = select(*columns, jobs.c.tags).where(_RUNS).offset(literal_column("0")).subquery()
            names = [running.c[column.name] for column in columns]
            selects.append(select(*names).where(*_has_tag(running.c)))
            found = found.where(jobs.c.status != _RUNNING)
        selects.append(found)
    return select(_union(selects).subquery()).limit(_number("many")).cte("tagged").prefix_with("MATERIALIZED")


def _many(shape: Shape) -> Any:
    count = select(func.count()).select_from(_tagged(shape)).scalar_subquery()
    return count >= _number("many")


def _filtered(shape: Shape, rows: Any, part: _Part | None = None) -> list[Any]:
    """Conditions on rows that no index serves; with ``part`` on their time, too."""
    c = rows.c
    found = [c[name] == _text(name) for name in ("queue", "type") if name in shape.given]
    if "status" in shape.given and "status" in c:
        found.append(c.status == any_(bindparam("statuses", type_=ARRAY(Text), required=False)))
    if part is not None:
        found += [c.id >= _id(part.low), c.id < _id(part.high), *_created(shape, c)]
    return found


def _created(shape: Shape, c: Any) -> list[Any]:
    after, before = (
        bindparam(f"created_{word}", type_=c.created_at.type, required=False) for word in ("after", "before")
    )
    found = [c.created_at >= after] if "created_after" in shape.given else []
    return found + ([c.created_at < before] if "created_before" in shape.given else [])


def _has_tag(c: Any) -> list[Any]:
    # The first is what the partial index says of its rows.
    return [c.tags != literal_column("'{}'"), c.tags.contains(bindparam("tag", type_=ARRAY(Text), required=False))]


def _looked_at(shape: Shape, table: Table) -> list[Any]:
    """The columns of filters that no index serves."""
    searched = {"error_type", "error_message", "payload"} if shape.searches else set()
    names = sorted({"id", "queue", "type", "created_at", *searched})
    status = jobs.c.status if table is jobs else literal(Status.COMPLETED.value, literal_execute=True).label("status")
    return [*(table.c[name] for name in names), status]


def _searched(shape: Shape, rows: Any) -> list[Any]:
    c, found = rows.c, []
    if "error" in shape.given:
        message = func.lower(func.concat(c.error_type, literal_column("': '"), c.error_message))
        found += [c.error_type.is_not(None), func.strpos(message, _text("error")) > literal_column("0")]
    for n in range(shape.paths):
        path = bindparam(f"path_{n}", type_=ARRAY(Text), required=False)
        found.append(c.payload.op("#>>")(path) == _text(f"value_{n}"))
    return found


def _union(selects: list[Any]) -> Any:
    return union_all(*selects) if len(selects) > 1 else selects[0]


def _text(name: str) -> Any:
    return bindparam(name, type_=Text, required=False)


def _id(name: str) -> Any:
    return bindparam(name, type_=Uuid, required=False)


def _number(name: str) -> Any:
    return bindparam(name, type_=Integer, required=False)
