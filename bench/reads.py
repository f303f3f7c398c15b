"""What one read costs on a full database: every page of the dashboard, its regions as open tabs fetch them, and the API.

Rows are made by SQL: finished ones of several days, and some of every other status. One request at a time: what is measured is
the server, not a queue before it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.machine import Machine
from bench.processes import cpu_of, family
from jobflow.pool import Pool
from jobflow.store import Store

BAR = 50.0  # ms, p99 of all but searches
DAYS = 10
WAITING = 5_000  # rows of each other status
BATCH = 100_000  # rows in one INSERT
HTML = "Accept: text/html\r\n"
PART = HTML + "HX-Request: true\r\nHX-Request-Type: partial\r\n"

ID = "(lpad(to_hex({ms}), 12, '0') || '7000' || '8000' || lpad(to_hex({n}), 12, '0'))::uuid"
MOMENT = f"((extract(epoch FROM now()) * 1000)::bigint - 86400000::bigint * {DAYS - 1} + n::bigint * {DAYS - 1} * 86400000 / {{rows}})"
DONE = """
INSERT INTO jobs_done (id, owner, queue, type, priority, attempt, max_attempts, rescues, run_epoch, run_at, timeout,
                       created_at, started_at, finished_at, flags, tags, payload, result)
SELECT {id}, 0, 'q' || n % 5, 'type.' || n % 7, 5, 1, 5, 0, 7, t, 300, t, t, t, 0,
       CASE WHEN n % 100 = 0 THEN '{{red}}'::text[] ELSE '{{}}' END,
       jsonb_build_object('user', n % 1000, 'subject', 'Hello'), '{{"ok": true}}'
FROM generate_series({first}, {last}) AS g (n), LATERAL (SELECT to_timestamp({ms} / 1000.0) AS t) m
"""
OTHERS = """
INSERT INTO jobs (id, owner, queue, type, priority, status, max_attempts, attempt, run_at, timeout, created_at, updated_at,
                  payload, error_type, error_message, finished_at, flags)
SELECT {id}, 0, 'q' || n % 5, 'type.' || n % 7, n % 10, status, 5, 1, now() + later * interval '1 s', 300, now(), now(), '{{}}',
       CASE WHEN status IN ('failed', 'dead_letter') THEN 'ValueError' END, 'something ' || n % 50,
       CASE WHEN status IN ('dead_letter', 'cancelled') THEN now() END, 0
FROM generate_series(1, {rows}) AS g (n),
     (VALUES ('pending', 0, 1), ('scheduled', 3600, 2), ('failed', 3600, 3), ('dead_letter', 0, 4), ('cancelled', 0, 5))
       AS s (status, later, place)
"""
COUNTED = """
INSERT INTO counter_deltas (queue, before, after, n)
SELECT queue, '', status, count(*) FROM (SELECT queue, status FROM jobs UNION ALL SELECT queue, 'completed' FROM jobs_done) j
GROUP BY queue, status
"""


def fill(url: str, rows: int) -> None:
    """``rows`` finished jobs over some days, and some waiting, failed and dead ones."""
    execute = machine.execute
    asyncio.run(execute(url, "INSERT INTO queues (name) SELECT 'q' || n FROM generate_series(0, 4) n"))
    now = int(time.time()) // 86_400

    async def days() -> None:
        pool = Pool(url, shares={"bench": 1})
        for day in range(now - DAYS + 1, now + 1):
            await Store(pool, "bench").create_day(day)
        await pool.close()

    asyncio.run(days())
    for first in range(1, rows + 1, BATCH):
        ms = MOMENT.format(rows=rows)
        text = DONE.format(id=ID.format(ms=ms, n="n"), ms=ms, first=first, last=min(first + BATCH - 1, rows))
        asyncio.run(execute(url, "SET statement_timeout = 0", text))
    ms = "((extract(epoch FROM now()) * 1000)::bigint - n)"
    asyncio.run(execute(url, OTHERS.format(id=ID.format(ms=ms, n="n * 10 + place"), rows=WAITING)))
    asyncio.run(execute(url, COUNTED, "VACUUM (ANALYZE) jobs_done", "VACUUM (ANALYZE) jobs"))


def targets(job: str) -> Iterator[tuple[str, str, bool]]:
    """(path, further headers, whether it is a search)"""
    for path in ("", "/jobs", f"/jobs/{job}", "/dlq", "/queues", "/workers", "/create"):
        yield f"/dashboard{path}", HTML, False
    for query in ("status=completed", "queue=q1", "type=type.3", "tag=red", "status=failed", "queue=q1&type=type.3"):
        yield f"/dashboard/jobs?{query}", HTML, False
    yield "/dashboard/jobs?error=value", HTML, True
    yield "/dashboard/jobs?payload.user=42", HTML, True
    for path in ("", "/jobs", f"/jobs/{job}", "/dlq", "/queues"):
        yield f"/dashboard{path}", PART, False
    for path in ("/jobs", "/jobs?offset=9000", "/jobs?status=completed&queue=q1", "/jobs?tag=red", f"/jobs/{job}"):
        yield path, "", False
    for path in ("/dlq", "/queues", "/queues/q1", "/workers", "/types", "/metrics", "/openapi.json", "/readyz"):
        yield path, "", False


async def ask(port: int, path: str, headers: str, cookie: str, times: int) -> tuple[list[float], int, bytes]:
    """Seconds of each answer, the size of the last, and its beginning."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n{headers}\r\n".encode()
    taken, size, head = [], 0, b""
    for _ in range(times):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        await reader.readexactly(size)
        taken.append(time.perf_counter() - began)
    writer.close()
    return taken, size, head


def postgres_cpu(folder: Path) -> float:
    """Seconds of processor time of all Postgres processes that live."""
    main = int(next(folder.rglob("postmaster.pid")).read_text().splitlines()[0])
    total = 0.0
    for pid in family(main):
        with suppress(OSError):  # it ended meanwhile
            total += cpu_of(pid)
    return total


def add_command(commands: Any) -> None:
    parser = commands.add_parser("reads", help=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="finished jobs (default 1,000,000)")
    parser.add_argument("--times", type=int, default=300, help="requests for each read (default 300)")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 150, highlight=False)
    made = Table(
        "read", "KB", "p50 ms", "p99 ms", "app CPU ms", "Postgres CPU ms", "", title=f"{args.rows:,} finished jobs"
    )
    with machine.machine(args.data) as machine_:
        console.print(f"{machine_.versions()}\n{os.cpu_count()} cores\n")
        url = machine_.fresh()
        fill(url, args.rows)
        job = asyncio.run(machine.fetch(url, "SELECT id::text FROM jobs WHERE status = 'dead_letter' LIMIT 1"))
        with machine_.app(url, WORKER_CONCURRENCY=0) as app:
            app.wait_until_ready()
            _, _, head = asyncio.run(ask(app.port, "/dashboard", HTML, "", 1))
            cookie = head.partition(b"set-cookie: ")[2].partition(b";")[0].decode()
            for path, headers, search in targets(job):
                made.add_row(*measure(machine_, app, path, headers, cookie, args.times, search=search))
    console.print(made)


def measure(
    machine_: Machine, app: machine.App, path: str, headers: str, cookie: str, times: int, *, search: bool
) -> list[str]:
    asyncio.run(ask(app.port, path, headers, cookie, 10))  # warm
    times = times // 10 if search else times
    own, postgres = app.cpu(), postgres_cpu(machine_.folder)
    taken, size, head = asyncio.run(ask(app.port, path, headers, cookie, times))
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{path}: {head.decode()}")
    ordered = sorted(seconds * 1e3 for seconds in taken)
    p99 = machine.percentile(ordered, 0.99)
    used = ((app.cpu() - own) / times * 1e3, (postgres_cpu(machine_.folder) - postgres) / times * 1e3)
    name = path + (" (shared)" if headers == PART else "")
    figures = [f"{value:.2f}" for value in (machine.percentile(ordered, 0.5), p99, *used)]
    return [name, f"{size / 1e3:.0f}", *figures, "search" if search else "held" if p99 <= BAR else "MISSED"]
