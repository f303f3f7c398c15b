"""Lists with free filters over both tables, compared with the same filter written in Python."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobflow import listing
from jobflow.errors import Invalid
from jobflow.lifecycle import Status
from jobflow.listing import JobFilter
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.rows import add_job, ago, id_of

T0 = ago(10_000)
PAYLOADS: list[Any] = [
    {},
    {"user": {"id": 42, "name": "Zoë"}, "ok": True},
    {"user": {"id": "42"}, "list": [1, {"x": "y"}]},
    {"user": None, "a.b": "dot", "quote'\"": "q"},
]
ERRORS: list[tuple[str | None, str | None]] = [
    (None, None),
    ("ValueError", "100% of IT\\failed"),
    ("TimeoutError", "timed out after 3 s"),
    ("E", None),
]


async def populate(database: Connection, count: int = 90) -> dict[UUID, dict[str, Any]]:
    """Jobs with everything mixed; oldest first."""
    rng = random.Random(7)
    rows: dict[UUID, dict[str, Any]] = {}
    for n in range(count):
        status = list(Status)[n % len(Status)].value
        error_type, message = rng.choice(ERRORS)
        columns: dict[str, Any] = {
            "id": id_of(T0 + timedelta(seconds=n)),
            "type": rng.choice(["a", "b"]),
            "queue": rng.choice(["x", "y"]),
            "tags": rng.choice([[], ["red"], ["red", "b'lue"], ["{NULL}"]]),
            "payload": json.dumps(rng.choice(PAYLOADS)),
            "error_type": error_type,
            "error_message": message,
            "created_at": T0 + timedelta(seconds=n),
        }
        rows[await add_job(database, status, **columns)] = columns | {"status": status}
    return rows


def text_at(payload: str, *path: str) -> str | None:
    value = json.loads(payload)
    for name in path:
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def error_of(row: dict[str, Any]) -> str:
    return f"{row['error_type']}: {row['error_message'] or ''}".lower() if row["error_type"] else ""


Rule = Callable[[dict[str, Any]], Any]
FILTERS: list[tuple[dict[str, Any], Rule]] = [
    ({}, lambda row: True),
    *(({"statuses": (s.value,)}, lambda row, s=s: row["status"] == s.value) for s in Status),
    ({"statuses": ("failed", "dead_letter")}, lambda row: row["status"] in ("failed", "dead_letter")),
    ({"statuses": ("completed", "pending")}, lambda row: row["status"] in ("completed", "pending")),
    ({"statuses": tuple(s.value for s in Status)}, lambda row: True),
    ({"type": "a"}, lambda row: row["type"] == "a"),
    ({"type": "none of these"}, lambda row: False),
    ({"queue": "y"}, lambda row: row["queue"] == "y"),
    ({"tag": "red"}, lambda row: "red" in row["tags"]),
    ({"tag": "b'lue"}, lambda row: "b'lue" in row["tags"]),
    ({"tag": "{NULL}"}, lambda row: "{NULL}" in row["tags"]),
    ({"created_after": T0 + timedelta(seconds=30)}, lambda row: row["created_at"] >= T0 + timedelta(seconds=30)),
    ({"created_before": T0 + timedelta(seconds=30)}, lambda row: row["created_at"] < T0 + timedelta(seconds=30)),
    ({"error": "valueerror"}, lambda row: "valueerror" in error_of(row)),
    ({"error": "OR: 100% of it\\"}, lambda row: "100%" in error_of(row)),
    ({"error": "_"}, lambda row: False),
    ({"error": "Timed Out"}, lambda row: "timed out" in error_of(row)),
    ({"error": ":"}, lambda row: bool(row["error_type"])),
    ({"payload": ((("user", "id"), "42"),)}, lambda row: text_at(row["payload"], "user", "id") == "42"),
    ({"payload": ((("user", "name"), "Zoë"),)}, lambda row: "Zo" in row["payload"]),
    ({"payload": ((("ok",), "true"),)}, lambda row: text_at(row["payload"], "ok") == "true"),
    ({"payload": ((("list", "1", "x"), "y"),)}, lambda row: text_at(row["payload"], "list", "1", "x") == "y"),
    ({"payload": ((("a.b",), "dot"), (("quote'\"",), "q"))}, lambda row: "a.b" in row["payload"]),
    ({"payload": ((("user",), "null"),)}, lambda row: False),
    (
        {"statuses": ("completed", "failed"), "type": "a", "queue": "x", "tag": "red"},
        lambda row: (row["status"], row["type"], row["queue"]) in [("completed", "a", "x"), ("failed", "a", "x")]
        and "red" in row["tags"],
    ),
    (
        {"statuses": ("dead_letter",), "error": "value", "payload": ((("user", "id"), "42"),)},
        lambda row: row["status"] == "dead_letter" and "value" in error_of(row) and "42" in row["payload"],
    ),
    (
        {"type": "b", "created_after": T0 + timedelta(seconds=9), "created_before": T0 + timedelta(seconds=60), "error": "e"},
        lambda row: row["type"] == "b"
        and T0 + timedelta(seconds=9) <= row["created_at"] < T0 + timedelta(seconds=60)
        and "e" in error_of(row),
    ),
]  # fmt: skip


async def test_every_filter_finds_what_it_says_newest_first(store: Store, database: Connection) -> None:
    rows = await populate(database)
    newest = sorted(rows, reverse=True)
    for options, rule in FILTERS:
        wanted = JobFilter(**options)
        expected = [id for id in newest if rule(rows[id])]
        page = await store.list_jobs(wanted, limit=200)
        assert expected == [job.id for job in page.items], options
        assert (None, len(expected), False) == (page.next, page.total, page.capped), options
        assert (listing.SEARCHED if wanted.error or wanted.payload else None) == page.searched
        assert expected == await store.list_ids(wanted, 1_000, None), options
        assert expected[1:] == (await store.list_ids(wanted, 1_000, expected[0]) if expected else []), options
        assert len(expected) == await store.count_matching(wanted), options
    assert sum(1 for _, rule in FILTERS if any(rule(row) for row in rows.values())) > len(FILTERS) - 5


async def test_a_job_in_a_list_is_the_job_itself_without_its_history(store: Store, database: Connection) -> None:
    await populate(database, 16)
    await database.execute(
        "UPDATE jobs SET cancel_requested_at = now(), cancel_reason = 'r' WHERE status = 'processing'"
    )
    await database.execute("""UPDATE jobs_done SET result = '{"n": 1}'""")
    page = await store.list_jobs(JobFilter(), limit=50)
    assert len(Status) == len({job.status for job in page.items})
    for job in page.items:
        alone = await store.get_job(job.id)
        for name in job.__struct_fields__:
            if name != "attempts":
                left, right = getattr(alone, name), getattr(job, name)
                same = bytes(left) == bytes(right) if name in ("payload", "result") and left else left == right
                assert same, (job.status, name)


@pytest.mark.parametrize("statuses", [(), ("completed",), ("pending", "completed"), ("failed",)])
async def test_pages_are_stable_while_jobs_come_in(
    store: Store, database: Connection, statuses: tuple[str, ...]
) -> None:
    rows = await populate(database, 64)
    wanted = JobFilter(statuses=statuses)
    expected = [id for id in sorted(rows, reverse=True) if not statuses or rows[id]["status"] in statuses]
    seen: list[UUID] = []
    before: UUID | None = None
    while True:
        page = await store.list_jobs(wanted, limit=3, before=before)
        seen += [job.id for job in page.items]
        for status in ("pending", "completed", "failed"):
            await add_job(database, status)
        if page.next is None:
            break
        assert page.next == seen[-1]
        before = page.next
    assert expected == seen


@pytest.mark.parametrize("statuses", [(), ("completed",), ("pending", "completed"), ("failed",)])
async def test_pages_go_upwards_too(store: Store, database: Connection, statuses: tuple[str, ...]) -> None:
    rows = await populate(database, 64)
    wanted = JobFilter(statuses=statuses)
    expected = [id for id in sorted(rows, reverse=True) if not statuses or rows[id]["status"] in statuses]
    seen: list[UUID] = []
    after = expected[-1]
    while items := (page := await store.list_jobs(wanted, limit=3, after=after)).items:
        seen[:0] = [job.id for job in items]
        assert page.next == items[-1].id
        after = items[0].id
    assert expected[:-1] == seen


async def test_an_offset_skips_over_both_tables(store: Store, database: Connection) -> None:
    newest = sorted(await populate(database, 40), reverse=True)
    for offset in (0, 1, 7, 38, 40, 99):
        page = await store.list_jobs(JobFilter(), limit=5, offset=offset)
        assert newest[offset : offset + 5] == [job.id for job in page.items]
        assert (offset + 5 < 40) == (page.next is not None)
        assert page.total == 40


@pytest.mark.parametrize("queues", [1, 3, 4, 9])
async def test_a_page_far_down_is_what_comes_after_those_before_it(
    store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch, queues: int
) -> None:
    monkeypatch.setattr(listing, "FAR", 1)
    rng, kinds, born, ids = random.Random(queues), [], {}, {}
    for n in range(200):
        queue = f"q{min(int(rng.expovariate(0.4)), queues - 1)}"  # some have many jobs, some hardly one
        kinds.append((queue, rng.choice("ab"), rng.choice(["completed"] * 5 + ["pending", "dead_letter"])))
        born[n] = T0 + timedelta(seconds=n)
        ids[n] = id_of(born[n])
        columns = {"id": ids[n], "created_at": born[n], "queue": queue, "type": kinds[n][1]}
        await add_job(database, kinds[n][2], **columns)
    for options in (
        {"type": "a"},
        {"type": "a", "created_after": born[31]},
        {"type": "a", "created_before": born[150]},
        {"type": "a", "statuses": ("completed", "pending")},
        {"type": "a", "queue": "q0"},
        {"statuses": ("completed",)},
        {},
    ):
        wanted = JobFilter(**options)  # type: ignore[arg-type]
        numbers = [
            n
            for n in reversed(range(200))
            if wanted.type in (None, kinds[n][1])
            and wanted.queue in (None, kinds[n][0])
            and (not wanted.statuses or kinds[n][2] in wanted.statuses)
            and (wanted.created_after is None or n >= 31)
            and (wanted.created_before is None or n < 150)
        ]
        for offset in (1, 4, 17, 60, len(numbers) - 2, len(numbers) + 5):
            page = await store.list_jobs(wanted, limit=7, offset=offset)
            assert [ids[n] for n in numbers[offset : offset + 7]] == [job.id for job in page.items], offset
            if page.next is not None:
                after = await store.list_jobs(wanted, limit=3, offset=offset, before=page.next)
                rest = numbers[offset + 7 :][offset : offset + 3]
                assert [ids[n] for n in rest] == [job.id for job in after.items], offset


async def test_a_page_that_is_just_full_has_no_next(store: Store, database: Connection) -> None:
    newest = sorted(await populate(database, 8), reverse=True)
    assert None is (await store.list_jobs(JobFilter(), limit=8)).next
    assert newest[6] == (await store.list_jobs(JobFilter(), limit=7)).next


async def test_totals_are_exact_up_to_a_bound_and_say_when_there_are_more(
    store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await populate(database, 40)  # five of each status
    found = {}
    for bound in (39, 40, 41):
        monkeypatch.setattr(listing, "EXACT", bound)
        page = await store.list_jobs(JobFilter(), limit=1)
        found[bound] = (page.total, page.capped)
    assert found == {39: (39, True), 40: (40, False), 41: (40, False)}
    monkeypatch.setattr(listing, "EXACT", 4)
    for statuses in (("completed",), ("failed",), ("failed", "completed")):
        page = await store.list_jobs(JobFilter(statuses=statuses), limit=1)
        assert (page.total, page.capped) == (4, True)
    assert await store.count_matching(JobFilter()) == 40  # what a redrive matches is never capped


async def test_a_search_looks_at_the_newest_of_each_table_only_and_says_so(
    store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SEARCHED", 3)
    ids = [await add_job(database, "failed", error_type="E", payload='{"a": 1}') for _ in range(5)]
    other = await add_job(database, "failed", queue="other", error_type="E")
    for options in ({"error": "e"}, {"payload": ((("a",), "1"),)}):
        page = await store.list_jobs(JobFilter(queue="default", **options), limit=10)  # type: ignore[arg-type]
        assert (ids[:1:-1], 3, 3) == ([job.id for job in page.items], page.total, page.searched)
    page = await store.list_jobs(JobFilter(error="e"), limit=10)
    assert [other, *ids[:2:-1]] == [job.id for job in page.items]


async def test_a_search_that_takes_too_long_asks_for_a_narrower_one_and_harms_nobody(
    store: Store, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute(
        "INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload) "
        "SELECT gen_random_uuid(), 'q', 't', 5, 'pending', 1, now(), 1, now(), now(), '{}' FROM generate_series(1, 30000)"
    )
    monkeypatch.setattr(listing, "TIMEOUT_MS", 1)
    with pytest.raises(Invalid, match="Narrow it"):
        await store.list_jobs(JobFilter(payload=((("a", "b"), "c"),)), limit=5)
    monkeypatch.undo()
    assert len((await store.list_jobs(JobFilter(queue="q"), limit=5)).items) == 5


async def test_planner_methods_are_on_for_the_list_alone(store: Store, database: Connection) -> None:
    pinned = store.pinned()
    names = ("enable_hashjoin", "enable_seqscan", "enable_bitmapscan", "statement_timeout", "transaction_read_only")

    async def current() -> list[str]:
        async with pinned.connection() as connection:
            return [await connection.fetchval("SELECT current_setting($1)", name) for name in names]

    before = await current()
    await pinned.list_jobs(JobFilter(error="x"), limit=1)
    await pinned.count_matching(JobFilter())
    await pinned.list_ids(JobFilter(), 1, None)
    assert ["off", "off", "off", "10s", "off"] == before == await current()
    await pinned.release()
