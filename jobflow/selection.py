"""The statements of lists: one for each shape of a filter, written once by SQLAlchemy from what ``kinds`` reads in order."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    Double,
    Select,
    Table,
    Uuid,
    bindparam,
    case,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.types import Text

from jobflow.kinds import (
    ONE,
    RUNNING,
    RUNS,
    Part,
    Shape,
    bound_number,
    bound_text,
    filtered,
    indexed,
    newest,
    one_kind,
    union,
)
from jobflow.lifecycle import Status
from jobflow.statements import SQL
from jobflow.tables import jobs, jobs_done

What = Literal["page", "ids", "count"]

_DIALECT = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
MARGIN = 3  # times as many as are too many must have a tag, before an estimate is believed
_ALL = Part("first", "last", "exact")
_TAG: Any = bindparam("tag", type_=ARRAY(Text), required=False)


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
    part = Part("low", "high", "rows", shape.upwards)
    counted: Select[Any]
    if shape.looks and not shape.turned:  # what is expensive is done once
        ids = union(_found(shape, _ALL._replace(limit="window"))).cte("found").prefix_with("MATERIALIZED")
        counted = _counted(ids)
    else:
        ids = union(_found(shape, part)).subquery()
        counted = _count(shape)
        if shape.only_tag:
            few = _counted(_tagged(shape)).scalar_subquery()
            counted = select(case((_common(shape), bound_number("exact")), else_=few).label("matching"))
    page = (
        select(ids.c.id)
        .order_by(*part.order(ids.c.id))
        .limit(bound_number("limit"))
        .offset(bound_number("offset"))
        .cte("page")
    )
    # LIMIT, so that each is fetched by its id, even while a table seems empty.
    job = text(f"{SQL['get_job'].replace('$1', 'page.id')}\nLIMIT 1").columns(id=Uuid).lateral("job")
    browsed = _many(shape) if "tag" in shape.given else literal_column("false")
    matching = counted.subquery()
    both = matching.outerjoin(page.join(job, true()), true())
    told = select(matching.c.matching, browsed.label("browsed"), literal_column("job.*"))
    return told.select_from(both).order_by(*part.order(page.c.id))


def _ids(shape: Shape) -> Select[Any]:
    part = Part("low", "high", "rows")
    found = union(_found(shape, part)).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(bound_number("rows"))


def _count(shape: Shape) -> Select[Any]:
    return _counted(union(_found(shape, _ALL)).subquery())


def _counted(ids: Any) -> Select[Any]:
    return select(func.count().label("matching")).select_from(select(ids.c.id).limit(bound_number("exact")).subquery())


def _tables(shape: Shape) -> list[Table]:
    live, done = shape.wanted & {"resting", "running"}, "done" in shape.wanted
    return [*([jobs] if live else []), *([jobs_done] if done else [])]


# ---- which ids match ----------------------------------------------------------------------------------------------------


def _found(shape: Shape, part: Part) -> list[Select[Any]]:
    """Selects of the ids that match: together they have at least the first ``part.limit`` ones."""
    if "tag" in shape.given:
        # Those with the tag while they are not too many, else those among the newest of both tables.
        tagged = _tagged(shape)
        few = select(tagged.c.id).where(*filtered(shape, tagged, part), *_searched(shape, tagged), ~_many(shape))
        return [_first(part, select_) for select_ in (few, *(_browsed(shape, t, part) for t in _tables(shape)))]
    if shape.searches:
        return [_first(part, _in_window(shape, t, part._replace(limit="window"))) for t in _tables(shape)]
    return [select_ for table in _tables(shape) for select_ in indexed(shape, table, part)]


def _first(part: Part, found: Select[Any]) -> Select[Any]:
    return select(found.order_by(*part.order(found.selected_columns.id)).limit(bound_number(part.limit)).subquery())


def _browsed(shape: Shape, table: Table, part: Part) -> Select[Any]:
    """With a tag that too many have, among the newest of both tables: what is completed and older than as many live jobs
    is none of them."""
    window = part._replace(limit="window")
    floor = None
    if table is jobs_done and jobs in _tables(shape) and not part.upwards:
        floor = newest(shape, jobs, window, {}).limit(ONE).offset(bound_number("window")).scalar_subquery()
    columns = [*_looked_at(shape, table), table.c.tags]
    rows = newest(shape, table, window, {}, columns, floor).subquery()
    conditions = [*filtered(shape, rows), *_has_tag(rows.c), *_searched(shape, rows)]
    return select(rows.c.id).where(_many(shape), *conditions)


def _in_window(shape: Shape, table: Table, window: Part) -> Select[Any]:
    """Of the newest rows of the other filters' result those that have what is searched for."""
    kind = one_kind(shape, table)
    if kind is not None:
        row = newest(shape, table, window, kind, _looked_at(shape, table)).subquery()
        return select(row.c.id).where(*_searched(shape, row))
    found = union(indexed(shape, table, window)).subquery()
    ids = select(found.c.id).order_by(*window.order(found.c.id)).limit(bound_number("window")).subquery()
    rows = select(*_looked_at(shape, table)).where(table.c.id == ids.c.id).limit(ONE).lateral()
    return select(rows.c.id).join_from(ids, rows, true()).where(*_searched(shape, rows))


@cache
def _tagged(shape: Shape) -> CTE:
    """Jobs with the tag, in no order, until there are too many; none if that is known. Nothing here but the tag has an index
    that could serve."""
    selects = []
    for table in _tables(shape):
        columns = _looked_at(shape, table)
        found = select(*columns).where(*_has_tag(table.c))
        if table is jobs:
            running = select(*columns, jobs.c.tags).where(RUNS).offset(literal_column("0")).subquery()
            names = [running.c[column.name] for column in columns]
            selects.append(select(*names).where(*_has_tag(running.c)))
            found = found.where(jobs.c.status != RUNNING)
        selects.append(found)
    found = select(union(selects).subquery()).where(~_common(shape)).limit(bound_number("many"))
    return found.cte("tagged").prefix_with("MATERIALIZED")


def _many(shape: Shape) -> Any:
    count = select(func.count()).select_from(_tagged(shape)).scalar_subquery()
    return or_(_common(shape), count >= bound_number("many"))


def _common(shape: Shape) -> Any:
    """Whether too many completed jobs have the tag by far, going by what ANALYZE has seen: nobody need count them then.
    Rows are never taken out of a day's table but with the table, or one by one."""
    if "done" not in shape.wanted:
        return false()
    return select(_estimated().c.n >= bound_number("many") * literal_column(str(MARGIN))).scalar_subquery()


@cache
def _estimated() -> CTE:
    estimated = text(SQL["estimate_tag"].replace("$1", ":tag")).bindparams(_TAG).columns(n=Double)
    return estimated.cte("estimated").prefix_with("MATERIALIZED")


def _has_tag(c: Any) -> list[Any]:
    # The first is what the partial index says of its rows.
    return [c.tags != literal_column("'{}'"), c.tags.contains(_TAG)]


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
        found += [c.error_type.is_not(None), func.strpos(message, bound_text("error")) > literal_column("0")]
    for n in range(shape.paths):
        path = bindparam(f"path_{n}", type_=ARRAY(Text), required=False)
        found.append(c.payload.op("#>>")(path) == bound_text(f"value_{n}"))
    return found
