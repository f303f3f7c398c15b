"""The plans of the hot statements, whatever Postgres knows or believes about the tables.

A good plan on a full and well-known table proves little: statistics go stale while a backlog drains, and a prepared
statement may change to its generic plan at any time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from jobflow import listing
from jobflow.listing import JobFilter
from jobflow.pool import Connection
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
    used = {i for n in every if (i := n.get("Index Name", "")).startswith("jobs_") and not i.startswith("jobs_done")}
    if used != wanted:
        yield f"indexes {sorted(used)} instead of {sorted(wanted)}"
    if name == "count_due" and not any("(queue = " in n.get("Index Cond", "") for n in every):
        yield "reads the jobs of every day to come"
    if name == "page_lanes" and not any("ROW(" in n.get("Index Cond", "") for n in every):
        yield "the place to go on from is a filter, no condition of the index"
    if name == "find_keys" and {"idempotency_keys_pkey"} != {n["Index Name"] for n in every if "Index Name" in n}:
        yield "not by the primary key"


async def bad_plans(connection: Connection, state: str, facts: Facts) -> list[str]:
    """Every statement with a bad plan, custom or generic, with the settings of the role."""
    found = []
    for name, (arguments, wanted) in HOT.items():
        prepared = await connection.prepare(TEXTS[name])
        kinds = ", ".join(kind.name for kind in prepared.get_parameters())
        values = ", ".join(literal(value) for value in arguments(facts))
        await connection.execute(f"PREPARE hot {f'({kinds})' if kinds else ''} AS {TEXTS[name]}")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot {f'({values})' if values else ''}")
            found += [
                f"{state}, {mode}: {name}: {fault}" for fault in faults(name, json.loads(text)[0]["Plan"], wanted)
            ]
        await connection.execute("DEALLOCATE hot; RESET plan_cache_mode")
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


async def days(connection: Connection, store: Store, worker: UUID) -> None:
    for day in range(TODAY - 11, TODAY + 1):
        await store.create_day(day)
        await fill(connection, DONE, 500, day)
    await fill(connection, WAITING, 5_000)
    await connection.execute(ANALYZE)


@pytest.mark.parametrize("state", [empty, fresh, stale, drained, busy, busy_unknown, days])
async def test_hot_statements_go_by_the_index_that_is_meant_for_them(
    store: Store, database: Connection, state: Callable[[Connection, Store, UUID], Awaitable[None]]
) -> None:
    worker = await prepare_tables(database)
    await state(database, store, worker)
    assert await bad_plans(database, state.__name__, Facts(await ids_of(database), worker)) == []


async def test_a_claim_and_an_ending_touch_no_more_rows_than_they_were_given(
    store: Store, database: Connection
) -> None:
    """What the plans are for: with 10,000 runs under way a batch reads its own rows and no others."""
    worker = await prepare_tables(database)
    await fill(database, RUNNING, 10_000, worker)
    ids = await ids_of(database)
    for name in ("complete_jobs", "end_runs"):
        arguments = HOT[name][0](Facts(ids, worker))
        transaction = database.transaction()
        await transaction.start()
        text = await database.fetchval(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {SQL[name]}", *arguments)
        await transaction.rollback()
        scans = [n for n in nodes(json.loads(text)[0]["Plan"]) if n.get("Index Name") == "jobs_pkey"]
        assert scans
        for scan in scans:
            read = (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
            assert read <= BATCH, name


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(), JobFilter(queue="q"), JobFilter(queue="none"), JobFilter(type="noop"), JobFilter(type="none"),
        JobFilter(tag="red"), JobFilter(statuses=("completed",)), JobFilter(statuses=("completed",), queue="q", type="noop"),
    ],
)  # fmt: skip
async def test_lists_find_finished_jobs_by_an_index(store: Store, database: Connection, wanted: JobFilter) -> None:
    await prepare_tables(database)
    for day in range(TODAY - 3, TODAY + 1):
        await store.create_day(day)
        await fill(database, DONE, 8_000, day)
    await database.execute("VACUUM (ANALYZE) jobs_done")
    parts = {"before": None, "after": None, "exact": listing.EXACT + 1, "rows": 51, "limit": 51, "offset": 0}
    text, names = listing._statement("page", listing._shape(wanted, parts))
    values = parts | listing._values(wanted)
    async with listing._free(database, "9s"):
        plan = await database.fetchval(f"EXPLAIN (FORMAT JSON) {text}", *[values[name] for name in names])
    read = [
        node for node in nodes(json.loads(plan)[0]["Plan"]) if node.get("Relation Name", "").startswith("jobs_done_2")
    ]
    assert read
    assert {node["Node Type"] for node in read} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
