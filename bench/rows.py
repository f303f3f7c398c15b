"""Rows by the million, made by SQL in seconds: running that many jobs would take hours. Counters agree with them."""

from __future__ import annotations

import asyncio
import time

from bench.machine import execute
from jobflow.pool import Pool
from jobflow.store import Store

DAYS = 6  # over which finished jobs were created, today included; less than they are retained
BATCH = 100_000  # rows in one INSERT
WRITERS = 2  # connections that insert at once

ID = "(lpad(to_hex({ms}), 12, '0') || '7000' || '8000' || lpad(to_hex({n}), 12, '0'))::uuid"
PAYLOAD = "jsonb_build_object('number', n, 'user', n % 1000, 'to', 'user@example.com', 'subject', 'Hello')"
MOMENT = f"({{now}} - 86400000::bigint * {DAYS - 1} + n::bigint * {DAYS - 1} * 86400000 / {{rows}})"
FINISHED = f"""
INSERT INTO jobs_done (id, owner, queue, type, priority, attempt, max_attempts, rescues, run_epoch, locked_by, run_at, timeout,
                       created_at, started_at, finished_at, flags, tags, payload, result)
SELECT {{id}}, 0, CASE n % 5 WHEN 0 THEN 'default' ELSE 'q' || n % 5 END, CASE n % 7 WHEN 0 THEN 'noop' ELSE 'type.' || n % 7 END,
       5, 1, 5, 0, 7, '00000000-0000-7000-8000-000000000001', t, 300, t, t + interval '1 s', t + interval '2 s', 0,
       CASE WHEN n % 100 = 0 THEN '{{{{red}}}}'::text[] ELSE '{{{{}}}}' END, {PAYLOAD}, '{{{{"ok": true}}}}'
FROM generate_series({{first}}, {{last}}) AS g (n), LATERAL (SELECT to_timestamp({{ms}} / 1000.0) AS t) m
"""
WAITING = f"""
INSERT INTO jobs (id, owner, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, payload)
SELECT {{id}}, 0, 'default', 'noop', 5, '{{status}}', 5, t + interval '{{later}} s', 300, t, t, {PAYLOAD}
FROM generate_series({{first}}, {{last}}) AS g (n), LATERAL (SELECT to_timestamp({{ms}} / 1000.0) AS t) m
"""
QUEUES = "INSERT INTO queues (name) SELECT 'q' || n FROM generate_series(0, 4) n ON CONFLICT DO NOTHING"
# A completed job is counted under its day, so that dropping the day can take it off again.
COUNT_FINISHED = """
INSERT INTO counter_deltas (queue, before, after, bucket, n)
SELECT queue, '', 'completed', substring(tableoid::regclass::text FROM '\\d+$')::int, count(*)
FROM jobs_done GROUP BY queue, tableoid
"""
COUNT_OPEN = "INSERT INTO counter_deltas (queue, before, after, n) SELECT queue, '', status, count(*) FROM jobs GROUP BY queue, status"


def add_finished(url: str, rows: int) -> None:
    """Completed jobs of several types, queues and days, some with a tag."""
    asyncio.run(_create_days(url))
    now = int(time.time() * 1000)
    ms = MOMENT.format(now=now, rows=rows)
    insert(url, FINISHED, rows, ms=ms, id=ID.format(ms=ms, n="n"))
    asyncio.run(execute(url, QUEUES, COUNT_FINISHED, "VACUUM (ANALYZE) jobs_done"))


def add_waiting(url: str, rows: int, *, later: bool) -> None:
    """Jobs that wait in the queue ``default``: due, or, when ``later``, scheduled for tomorrow."""
    ms = f"({int(time.time() * 1000)} - {rows} + n)"
    words = {"status": "scheduled", "later": 86_400} if later else {"status": "pending", "later": 0}
    insert(url, WAITING, rows, ms=ms, id=ID.format(ms=ms, n="n"), **words)
    asyncio.run(execute(url, COUNT_OPEN, "VACUUM (ANALYZE) jobs"))


async def _create_days(url: str) -> None:
    today = int(time.time()) // 86_400
    pool = Pool(url, shares={"bench": 1})
    for day in range(today - DAYS + 1, today + 1):
        await Store(pool, "bench").create_day(day)
    await pool.close()


def insert(url: str, statement: str, rows: int, **words: object) -> None:
    """Fill a statement's words and run it for pages of ``first`` to ``last``, 1 to ``rows`` in all."""
    pages = [(first, min(first + BATCH - 1, rows)) for first in range(1, rows + 1, BATCH)]

    async def go(mine: list[tuple[int, int]]) -> None:
        await execute(url, *(statement.format(first=first, last=last, **words) for first, last in mine))

    async def all_of_them() -> None:
        await asyncio.gather(*(go(pages[writer::WRITERS]) for writer in range(WRITERS)))

    asyncio.run(all_of_them())
