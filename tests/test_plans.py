"""The plans of the hot statements, whatever Postgres knows or believes about the tables.

A good plan on a full and well-known table proves little: statistics go stale while a backlog drains, and a prepared
statement may change to its generic plan at any time.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobflow import listing
from jobflow.listing import JobFilter
from jobflow.pool import Connection
from jobflow.selection import statement
from jobflow.statements import SQL, together
from jobflow.store import Store
from tests.support.rows import add_worker, ago

TODAY = int(time.time()) // 86_400
BATCH = 500

# An id of today, in the order of n.
MAKE_ID = "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid"

WAITING = f"""
INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload,
                  unique_key, expires_at)
SELECT {MAKE_ID}, 'q' || n % 3, 'noop', n % 10, (ARRAY['pending', 'pending', 'pending', 'scheduled', 'failed'])[1 + n % 5], 5,
       now() - (n % 1000 - 100) * interval '1 s', 300, now(), now(), '{{}}',
       CASE WHEN n % 50 = 0 THEN 'k' || n END, CASE WHEN n % 50 = 1 THEN now() + (n - 1000) * interval '1 s' END
FROM generate_series(1, $1::int) AS g (n)
"""
RUNNING = f"""
INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload,
                  attempt, run_epoch, locked_by, started_at)
SELECT {MAKE_ID}, 'q0', 'noop', 5, 'processing', 5, now(), 300, now(), now(), '{{}}', 1, 7, $2, now()
FROM generate_series(1, $1::int) AS g (n)
"""
DONE = """
INSERT INTO jobs_done (id, owner, queue, type, priority, attempt, max_attempts, rescues, run_epoch, run_at, timeout,
                       created_at, finished_at, flags, tags, payload)
SELECT (lpad(to_hex($2::bigint * 86400000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
       0, 'q', 'noop', 5, 1, 5, 0, 7, now(), 300, now(), now(), 0, '{}', '{}'
FROM generate_series(1, $1::int) AS g (n)
"""
ANALYZE = "ANALYZE jobs, jobs_done, job_attempts, workers, queues, idempotency_keys, counter_deltas, counters"


class Facts(NamedTuple):
    """What the arguments are made of."""

    ids: list[UUID]
    worker: UUID


def each(value: Any) -> list[Any]:
    return [value] * BATCH


# The arguments of each statement, and the indexes of jobs it may and must use.
PKEY = {"jobs_pkey"}
HOT: dict[str, tuple[Callable[[Facts], list[Any]], set[str]]] = {
    "insert_jobs": (
        lambda f: [
            *(each(0), [uuid7() for _ in range(BATCH)], each("q0"), each("noop"), each(5), each("{}"), each(5)),
            *(each(300.0), each(None), each(None), each(None), each(None), each(None)),
        ],
        set(),
    ),
    "claim_jobs": (lambda f: [f.ids, f.worker, "q0"], PKEY),
    "complete_jobs": (lambda f: [f.ids, each(7), each(f.worker), each("1")], PKEY),
    "end_runs": (
        lambda f: [
            *(f.ids, each(7), each(f.worker), each("failed"), each("errored"), each(1), each(0), each(1.0)),
            *(each(None), each("E"), each("m"), each("t"), each(True), False),
        ],
        PKEY,
    ),
    "read_endings": (lambda f: [f.ids, each(7), each(f.worker)], PKEY),
    "get_job": (lambda f: [f.ids[0]], PKEY),
    "find_jobs": (lambda f: [f.ids], PKEY),
    "find_status": (lambda f: [f.ids], PKEY),
    "retry_jobs": (lambda f: [f.ids], PKEY),
    "cancel_jobs": (lambda f: [f.ids, "why", True], PKEY),
    "discard_jobs": (lambda f: [f.ids], PKEY),
    "delete_jobs": (lambda f: [f.ids], PKEY),
    "page_lanes": (lambda f: ["q0", [0, 5], [ago(500), None], [f.ids[0], None], 500, ago(5)], {"jobs_open"}),
    "find_due": (lambda f: ["q0", 500], {"jobs_open"}),
    "oldest_due": (lambda f: [], {"jobs_open"}),
    "audit_runs": (lambda f: [[f.worker, uuid7()]], {"jobs_running"}),
    "find_lost_runs": (lambda f: [True], {"jobs_running"}),
    "expire_jobs": (lambda f: [500], {"jobs_expiring", "jobs_pkey"}),
    "count_due": (lambda f: [], {"jobs_later"}),
    "overview": (lambda f: [], {"jobs_later", "jobs_open"}),
    "find_unique": (lambda f: [0, [f"k{n}" for n in range(0, 250, 50)]], {"jobs_unique"}),
    "prune_jobs": (lambda f: ["cancelled", 5.0, 500], {"jobs_ended", "jobs_pkey"}),
    "fold_counters": (lambda f: [], set()),
    "find_keys": (lambda f: [0, ["a", "b"]], set()),
}
TEXTS = SQL | {
    "overview": together(
        *((name, None) for name in ("list_queues", "count_jobs", "count_due", "oldest_due", "list_workers")),
        ("queue_rates", 1),
        ("minutes", 60),
    )
}
KEYS = {
    "jobs_pkey": "id =",
    "jobs_unique": "unique_key =",
    "idempotency_keys_pkey": "key =",
}  # what each is searched by
IN_ORDER = ("page_lanes", "find_due", "oldest_due")  # read a lane from its head: nothing is sorted


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "'{" + ",".join("NULL" if v is None else f'"{v}"' for v in value) + "}'"
    if isinstance(value, str | UUID | datetime):
        return f"'{value}'"
    return str(value)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def read(scan: dict[str, Any]) -> float:
    """Rows that a scan has looked at; averages for each loop are rounded up."""
    return float((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"])


def faults(name: str, plan: dict[str, Any], wanted: set[str]) -> Iterator[str]:
    every = list(nodes(plan))
    for node in every:
        table = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and table.startswith(("jobs", "job_attempts")):
            yield f"a Seq Scan on {table}"
        if node["Node Type"] in ("Hash Join", "Merge Join"):
            yield f"a {node['Node Type']}"
        if node["Node Type"] in ("Sort", "Incremental Sort") and name in IN_ORDER:
            yield "a Sort"
        index, key = node.get("Index Name", ""), KEYS.get(node.get("Index Name", ""))
        if key is not None and key not in node.get("Index Cond", ""):
            yield f"reads all of {index}"
    used = {i for n in every if (i := n.get("Index Name", "")).startswith("jobs_") and not i.startswith("jobs_done")}
    if used != wanted:
        yield f"indexes {sorted(used)} instead of {sorted(wanted)}"
    if name == "count_due" and not any("(queue = " in n.get("Index Cond", "") for n in every):
        yield "reads the jobs of every day to come"
    if name == "page_lanes" and not any("ROW(" in n.get("Index Cond", "") for n in every):
        yield "the place to go on from is a filter, no condition of the index"
    if name == "find_keys" and {"idempotency_keys_pkey"} != {n["Index Name"] for n in every if "Index Name" in n}:
        yield "not by the primary key"


async def plans(connection: Connection, text: str, values: list[Any]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The custom and the generic plan of a statement, with the settings of the session."""
    kinds = ", ".join(kind.name for kind in (await connection.prepare(text)).get_parameters())
    literals = ", ".join(literal(value) for value in values)
    await connection.execute(f"PREPARE hot {f'({kinds})' if kinds else ''} AS {text}")
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot {f'({literals})' if literals else ''}")
        yield mode, json.loads(plan)[0]["Plan"]
    await connection.execute("DEALLOCATE hot; RESET plan_cache_mode")


async def bad_plans(connection: Connection, state: str, facts: Facts) -> list[str]:
    """Every hot statement with a bad plan."""
    found = []
    for name, (arguments, wanted) in HOT.items():
        async for mode, plan in plans(connection, TEXTS[name], arguments(facts)):
            found += [f"{state}, {mode}: {name}: {fault}" for fault in faults(name, plan, wanted)]
    return found


async def prepare_tables(connection: Connection) -> UUID:
    await connection.execute("SET statement_timeout = 0")
    await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")  # the state is the test's
    await connection.execute("INSERT INTO queues (name) VALUES ('q0'), ('q1'), ('q2')")
    return await add_worker(connection)


async def fill(connection: Connection, statement: str, *args: Any) -> None:
    await connection.execute(statement, *args)


async def ids_of(connection: Connection) -> list[UUID]:
    rows = await connection.fetch("SELECT id FROM jobs ORDER BY md5(id::text) LIMIT $1", BATCH)
    return [row["id"] for row in rows] or [uuid7() for _ in range(BATCH)]


async def empty(connection: Connection, store: Store, worker: UUID) -> None:
    pass


async def fresh(connection: Connection, store: Store, worker: UUID) -> None:
    await fill(connection, WAITING, 5_000)
    await connection.execute(ANALYZE)


async def stale(connection: Connection, store: Store, worker: UUID) -> None:
    await connection.execute(ANALYZE)
    await fill(connection, WAITING, 200_000)


async def drained(connection: Connection, store: Store, worker: UUID) -> None:
    """Statistics of a backlog that is not there any more."""
    await fill(connection, WAITING, 20_000)
    await connection.execute(ANALYZE)
    await connection.execute("DELETE FROM jobs WHERE id NOT IN (SELECT id FROM jobs LIMIT 600)")


async def busy(connection: Connection, store: Store, worker: UUID) -> None:
    await fill(connection, RUNNING, 10_000, worker)
    await connection.execute(ANALYZE)


async def busy_unknown(connection: Connection, store: Store, worker: UUID) -> None:
    """10,000 runs that the statistics do not know."""
    await fill(connection, WAITING, 5_000)
    await connection.execute(ANALYZE)
    await connection.execute("TRUNCATE jobs")
    await fill(connection, RUNNING, 10_000, worker)


async def emptied(connection: Connection, store: Store, worker: UUID) -> None:
    """A backlog is done, and a vacuum has told the planner that there are no rows. Until the next one, a minute and many
    jobs later, all goes by the plans that are made now."""
    await fill(connection, WAITING, 2_000)
    await connection.execute("DELETE FROM jobs")
    await connection.execute("VACUUM (ANALYZE) jobs, idempotency_keys, job_attempts")


async def days(connection: Connection, store: Store, worker: UUID) -> None:
    for day in range(TODAY - 11, TODAY + 1):
        await store.create_day(day)
        await fill(connection, DONE, 500, day)
    await fill(connection, WAITING, 5_000)
    await connection.execute(ANALYZE)


@pytest.mark.parametrize("state", [empty, fresh, stale, drained, busy, busy_unknown, emptied, days])
async def test_hot_statements_go_by_the_index_that_is_meant_for_them(
    store: Store, database: Connection, state: Callable[[Connection, Store, UUID], Awaitable[None]]
) -> None:
    worker = await prepare_tables(database)
    await state(database, store, worker)
    assert await bad_plans(database, state.__name__, Facts(await ids_of(database), worker)) == []


@pytest.mark.parametrize("rows", [3_000, 10_000, 20_000])
@pytest.mark.parametrize("known", [False, True], ids=["stale", "analyzed"])
async def test_a_claim_and_an_ending_touch_no_more_rows_than_they_were_given(
    store: Store, database: Connection, rows: int, known: bool
) -> None:
    """What the plans are for: a batch reads its own rows and no others."""
    worker = await prepare_tables(database)
    for name in ("claim_jobs", "complete_jobs", "end_runs"):
        await database.execute("TRUNCATE jobs")
        await (fill(database, WAITING, rows) if name == "claim_jobs" else fill(database, RUNNING, rows, worker))
        if known:
            await database.execute(ANALYZE)
        ids = await ids_of(database)
        arguments = HOT[name][0](Facts(ids, worker))
        transaction = database.transaction()
        await transaction.start()
        text = await database.fetchval(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {SQL[name]}", *arguments)
        await transaction.rollback()
        scans = [n for n in nodes(json.loads(text)[0]["Plan"]) if n.get("Index Name") == "jobs_pkey"]
        assert scans
        for scan in scans:
            assert read(scan) <= 2 * BATCH, name


@pytest.mark.parametrize("name", ["claim_jobs", "complete_jobs", "end_runs"])
async def test_a_plan_made_when_the_table_was_empty_reads_no_more_rows_either(
    store: Store, database: Connection, name: str
) -> None:
    worker = await prepare_tables(database)
    await fill(database, WAITING, 20_000)
    await database.execute("DELETE FROM jobs")
    await database.execute("VACUUM (ANALYZE) jobs")
    kinds = ", ".join(kind.name for kind in (await database.prepare(SQL[name])).get_parameters())
    await database.execute(f"PREPARE hot ({kinds}) AS {SQL[name]}")
    await database.execute("SET plan_cache_mode = force_generic_plan")
    for ids in ([uuid7()], None):
        if ids is None:
            await (fill(database, WAITING, 20_000) if name == "claim_jobs" else fill(database, RUNNING, 20_000, worker))
        values = HOT[name][0](Facts(ids or await ids_of(database), worker))
        transaction = database.transaction()
        await transaction.start()
        text = await database.fetchval(
            f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) EXECUTE hot ({', '.join(map(literal, values))})"
        )
        await transaction.rollback()
    scans = [
        n for n in nodes(json.loads(text)[0]["Plan"]) if n.get("Relation Name") == "jobs" and "Scan" in n["Node Type"]
    ]
    assert scans
    for scan in scans:
        assert read(scan) <= 2 * BATCH, scan


# Every choice of filters that have an index, and some that look at the rows.
LISTS = [
    *(
        JobFilter(statuses=statuses, queue=queue, type=type)
        for statuses in (
            (),
            ("pending",),
            ("completed",),
            ("failed", "dead_letter"),
            ("processing", "pending", "completed"),
        )
        for queue in (None, "q0")
        for type in (None, "noop")
    ),
    *(JobFilter(created_after=ago(5_000), created_before=ago(5), type=type) for type in (None, "noop")),
    *(
        JobFilter(tag="red"),
        JobFilter(tag="red", queue="q0"),
        JobFilter(error="e"),
        JobFilter(payload=((("a",), "1"),)),
    ),
]
PAGES = [
    ("page", None, None, False),
    ("page", uuid7(), None, False),
    ("page", None, uuid7(), False),
    ("page", None, None, True),
    ("ids", uuid7(), None, False),
    ("count", None, None, False),
]


def list_faults(wanted: JobFilter, plan: dict[str, Any]) -> Iterator[str]:
    """Rows come one by one by their id, or a kind by its place, or tags by their own index; all ids only when all are meant."""
    for node in nodes(plan):
        index, condition = node.get("Index Name", ""), node.get("Index Cond", "")
        table = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and table.startswith("jobs"):
            yield f"a Seq Scan on {table}"
        if node["Node Type"] in ("Hash Join", "Merge Join"):
            yield f"a {node['Node Type']}"
        if not index.startswith("jobs") or index == "jobs_running" or condition.startswith("(id = "):
            continue
        if ("tags" in index) != (node["Node Type"] == "Bitmap Index Scan") or ("tags" in index and wanted.tag is None):
            yield f"a {node['Node Type']} of {index}"
        elif "tags" in index:
            continue
        elif "pkey" in index:
            by_status = wanted.statuses and not table.startswith("jobs_done")
            if (wanted.queue or wanted.type or by_status) and not wanted.tag:  # which are looked for among the newest
                yield f"all ids by {index}: {condition}"
        elif not condition.startswith(("(ROW(", "((ROW(")) and index != "jobs_kinds":
            yield f"{index}: {condition}"


@pytest.mark.parametrize("state", [empty, fresh, stale, drained, busy, busy_unknown, days])
async def test_lists_go_by_the_index_of_their_filter(
    store: Store, database: Connection, state: Callable[[Connection, Store, UUID], Awaitable[None]]
) -> None:
    await state(database, store, await prepare_tables(database))
    found = []
    for wanted in LISTS:
        on, off = ("off", "on") if wanted.tag is None else ("on", "off")
        await database.execute(f"SET enable_bitmapscan = {on}; SET enable_sort = {off}")  # as listing._free does
        for what, before, after, far in PAGES:
            text, names = statement(what, listing._shape(wanted, before, after, listing.FAR if far else 0))
            values = listing._values(wanted, before, after) | {"rows": 51, "limit": 51, "offset": 0}
            async for mode, plan in plans(database, text, [values[name] for name in names]):
                found += [f"{mode}, {what}: {wanted}: {fault}" for fault in list_faults(wanted, plan)]
    assert sorted(set(found)) == []
