"""What a list reads, in rows: as many as it shows, whatever else is in the tables. Where no index serves, a bound holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobflow import listing
from jobflow.listing import JobFilter
from jobflow.pool import Connection
from jobflow.selection import MARGIN, statement
from jobflow.store import Store
from tests.support.rows import add_job, ago, id_of

FLOOD = 4_000  # younger rows of one kind in each table
OLD = ago(7_200)
LIMIT, EXACT = 5, 50
ENOUGH = 20 * EXACT  # rows that may be read: a few for each kind and day, and those that are counted

MADE = """
INSERT INTO {table} (id, owner, queue, type, priority, {own}, attempt, max_attempts, rescues, run_epoch, run_at, timeout, created_at,
                     flags, tags, payload)
SELECT (lpad(to_hex(((extract(epoch FROM now()) - {age}) * 1000)::bigint + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
       0, 'flood', 'flood', 5, {values}, 1, 5, 0, 7, now(), 300, now() - interval '1 h', 0, '{tags}', '{{"a": 1}}'
FROM generate_series(1, {rows}) AS g (n)
"""


async def flood(database: Connection, status: str, tags: str = "{}", rows: int = FLOOD, age: int = 3_600) -> None:
    """Rows younger than the needles, so that whoever walks down along all ids meets them first."""
    if status == "completed":
        own = {"table": "jobs_done", "own": "finished_at", "values": "now()"}
    else:
        ended = status in ("dead_letter", "cancelled")
        values = f"'{status}', now(), {'now()' if ended else 'NULL'}"
        own = {"table": "jobs", "own": "status, updated_at, finished_at", "values": values}
    await database.execute("INSERT INTO queues (name) VALUES ('flood') ON CONFLICT DO NOTHING")
    await database.execute(MADE.format(**own, tags=tags, rows=rows, age=age))


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in plan:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


async def rows_read(
    database: Connection, wanted: JobFilter, *, offset: int = 0, far: bool = False, **page: Any
) -> float:
    """By the statement of one page, over all its scans of jobs."""
    shape = listing._shape(wanted, offset=listing.FAR if far else 0, **page)
    rows = {"rows": offset + LIMIT + 1, "limit": LIMIT + 1, "offset": offset}
    values = listing._values(wanted, **page) | rows
    text, names = statement("page", shape)
    async with listing._free(database, wanted, "9s"):
        found = await database.fetchval(
            f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {text}", *[values[name] for name in names]
        )
    return sum(
        (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) + scan.get("Rows Removed by Index Recheck", 0))
        * scan["Actual Loops"]
        for scan in scans(json.loads(found)[0]["Plan"])
        if scan["Relation Name"].startswith("jobs")
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXACT", EXACT)
    monkeypatch.setattr(listing, "COMMON", EXACT)
    monkeypatch.setattr(listing, "BROWSED", 2 * EXACT)


FILTERS = [
    JobFilter(statuses=statuses, queue=queue, type=type, tag=tag)
    for statuses in ((), ("pending",), ("completed",), ("failed", "dead_letter"))
    for queue in (None, "hay")
    for type in (None, "flood", "needle")
    for tag in (None, "sharp", "blunt")
]


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("status", ["pending", "scheduled", "dead_letter", "completed"])
async def test_needles_are_found_without_turning_the_hay(
    store: Store, database: Connection, small: None, status: str, analyzed: bool
) -> None:
    """The needles are the oldest, so who walks along the ids reads everything. All have one status, queue or type each."""
    for number, needle in enumerate(("pending", "completed", "failed", "dead_letter")):
        for queue, type in (("hay", "needle"), ("flood", "needle"), ("hay", "flood")):
            moment = OLD + timedelta(seconds=number)
            await add_job(database, needle, id=id_of(moment), created_at=moment, queue=queue, type=type, tags=["sharp"])
    if analyzed:
        await database.execute("ANALYZE jobs, jobs_done")  # which knows nothing of the flood
    await flood(database, status, tags="{blunt}")
    for wanted in FILTERS:
        read = await rows_read(database, wanted)
        assert read <= ENOUGH, (wanted, read)
        page = await store.list_jobs(wanted, limit=LIMIT)
        if page.searched is None and page.next is None:
            assert page.total == len(page.items)
        edge = page.items[-1].id if page.items else id_of(OLD)
        for turn in ({"before": edge}, {"after": edge}) if wanted.tag is None else ():
            assert await rows_read(database, wanted, **turn) <= ENOUGH, (wanted, turn)


async def test_a_tag_of_too_many_is_looked_for_among_the_newest_and_that_is_said(
    store: Store, database: Connection, small: None
) -> None:
    await flood(database, "completed", tags="{blunt}")
    sharp = await add_job(database, "completed", queue="hay", type="needle", tags=["blunt"])
    page = await store.list_jobs(JobFilter(tag="blunt"), limit=LIMIT)
    assert (page.items[0].id, page.total, page.capped, page.searched) == (sharp, EXACT, True, None)
    page = await store.list_jobs(JobFilter(tag="blunt", queue="hay"), limit=LIMIT)
    assert ([job.id for job in page.items], page.total, page.searched) == ([sharp], 1, 2 * EXACT)
    page = await store.list_jobs(JobFilter(tag="blunt", queue="flood"), limit=LIMIT)
    assert (len(page.items), page.total, page.capped, page.searched) == (LIMIT, EXACT, True, 2 * EXACT)
    assert await store.count_matching(JobFilter(tag="blunt", queue="flood")) == FLOOD  # what is acted on is never cut
    assert len(await store.list_ids(JobFilter(tag="blunt", queue="flood"), FLOOD, None)) == FLOOD


async def test_a_tag_of_too_many_is_looked_for_among_the_newest_of_both_tables_together(
    store: Store, database: Connection, small: None
) -> None:
    await flood(database, "completed", tags="{blunt}")
    sharp = await add_job(database, "completed", id=id_of(ago(1_800)), queue="hay", tags=["blunt"])
    wanted = JobFilter(tag="blunt", queue="hay")
    for more, found in ((2 * EXACT, [sharp]), (1, [])):
        await flood(database, "pending", rows=more, age=60 + more)
        page = await store.list_jobs(wanted, limit=LIMIT)
        assert ([job.id for job in page.items], page.searched) == (found, 2 * EXACT)
        upwards = await store.list_jobs(wanted, limit=LIMIT, after=id_of(ago(2_000)))
        assert [job.id for job in upwards.items] == [sharp]  # which begins at the other end
        assert await store.list_ids(wanted, 10, None) == [sharp]  # what is acted on is never cut


async def test_a_tag_that_is_known_to_be_common_is_not_counted_and_the_answers_are_the_same(
    store: Store, database: Connection, small: None
) -> None:
    await flood(database, "completed", tags="{blunt}")
    await database.execute("UPDATE jobs_done SET tags = '{\"a,b\"}' WHERE id IN (SELECT id FROM jobs_done LIMIT 20)")
    filters = [
        JobFilter(tag="blunt"),
        JobFilter(tag="blunt", queue="flood"),
        JobFilter(tag="a,b"),
        JobFilter(tag="none"),
    ]
    filters.append(JobFilter(tag="blunt", statuses=("pending",)))
    unknown = [
        [await rows_read(database, each), await store.list_jobs(each, limit=LIMIT), await store.count_matching(each)]
        for each in filters
    ]
    await database.execute("ANALYZE jobs_done")
    known = [
        [await rows_read(database, each), await store.list_jobs(each, limit=LIMIT), await store.count_matching(each)]
        for each in filters
    ]
    read = [(before.pop(0), after.pop(0)) for before, after in zip(unknown, known, strict=True)]
    assert unknown == known
    assert [after < before for before, after in read[:2]] == [True, True]
    assert [before == after for before, after in read[2:]] == [True, True, True]


async def test_an_estimate_is_believed_with_a_margin_only(store: Store, database: Connection, small: None) -> None:
    await flood(database, "completed", tags="{blunt}")
    await database.execute("ANALYZE jobs_done")
    few = "DELETE FROM jobs_done WHERE id NOT IN (SELECT id FROM jobs_done LIMIT {})"
    for left, capped in ((MARGIN * (EXACT + 1) - 1, True), (EXACT - 1, False)):
        await database.execute(few.format(left))
        await database.execute("ANALYZE jobs_done")
        page = await store.list_jobs(JobFilter(tag="blunt"), limit=LIMIT)
        assert (page.total, page.capped) == (min(left, EXACT), capped)
        assert page.searched is None


async def test_a_page_far_down_does_not_read_as_many_of_each_queue(
    store: Store, database: Connection, small: None
) -> None:
    await flood(database, "completed")
    for n in range(8):
        await database.execute("INSERT INTO queues (name) VALUES ($1)", f"q{n}")
    await database.execute(
        "UPDATE jobs_done d SET type = 'far', queue = 'q' || n % 8 "
        "FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs_done) g WHERE g.id = d.id"
    )
    wanted = JobFilter(type="far", statuses=("completed",))
    near, far = [await rows_read(database, wanted, offset=400, far=far) for far in (False, True)]
    assert far < 0.6 * near


async def test_the_bounds_of_a_time_read_a_margin_and_no_more(store: Store, database: Connection, small: None) -> None:
    await flood(database, "completed")
    wanted = JobFilter(created_before=ago(4_000), created_after=ago(7_000))
    assert await rows_read(database, wanted) == 0
    assert await rows_read(database, JobFilter(created_before=OLD, type="flood")) == 0
