"""What one read costs on a full database: every page of the dashboard, its regions as open tabs fetch them, and the API.

Rows are made by SQL: finished ones of several days, and live ones of every other status. One request at a time: what is
measured is the server, not a queue before it. ``mixed`` draws the lists with filters.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine, mixed, rows
from bench.client import HTML, Client, cookie_of, get
from bench.figures import percentile, verdict
from bench.machine import App, Machine
from bench.processes import Meter

BAR, SEARCH_BAR = 50.0, 2_000.0  # ms, p99 of all but searches, and of those
SEARCHES = 5  # a search is asked for so many times less often
PART = HTML + "HX-Request: true\r\nHX-Request-Type: partial\r\n"


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


async def visit(port: int) -> str:
    """The cookie that a browser has after its first page."""
    client = Client(port)
    answer = await client.ask(get("/dashboard", HTML))
    client.close()
    return cookie_of(answer)


async def ask(port: int, request: bytes, times: int) -> tuple[list[float], int]:
    """Milliseconds of each answer, ascending, and the size of the last. Raises SystemExit: one was not 200."""
    client, taken, size = Client(port), [], 0
    for _ in range(times):
        began = time.perf_counter()
        answer = await client.ask(request)
        taken.append((time.perf_counter() - began) * 1e3)
        if answer.status != 200:
            raise SystemExit(f"{request.decode()}{answer.head.decode()}")
        size = len(answer.body)
    client.close()
    return sorted(taken), size


def examine(machine_: Machine, url: str, *, times: int, title: str) -> Table:
    """Read everything ``times`` times, from an application of its own on a database that is full. No job is run."""
    made = Table("read", "KB", "p50 ms", "p99 ms", "app CPU ms", "Postgres CPU ms", "", title=title)
    job = asyncio.run(machine.fetch(url, "SELECT id::text FROM jobs WHERE status = 'dead_letter' LIMIT 1"))
    every: list[float] = []
    with machine_.app(url, WORKER_CONCURRENCY=0) as app:
        app.wait_until_ready()
        cookie = asyncio.run(visit(app.port))
        for path, headers, search in targets(job):
            request = get(path, f"{headers}Cookie: {cookie}\r\n")
            name = path + (" (shared)" if headers == PART else "")
            count = max(times // SEARCHES, 5) if search else times
            taken, figures = measure(machine_, app, request, count)
            bar = SEARCH_BAR if search else BAR
            held = verdict(percentile(taken, 0.99) <= bar)
            made.add_row(name, *figures, f"search: {held}" if search else held)
            every += [] if search else taken
    every.sort()
    p50, p99 = percentile(every, 0.5), percentile(every, 0.99)
    made.add_row(f"all {len(every):,} but searches", "", f"{p50:.2f}", f"{p99:.2f}", "", "", verdict(p99 <= BAR))
    return made


def measure(machine_: Machine, app: App, request: bytes, times: int) -> tuple[list[float], list[str]]:
    """Milliseconds, ascending, and the cells of the table."""
    asyncio.run(ask(app.port, request, 10 if times > 20 else 2))  # warm
    meter = Meter(app=app.pid, postgres=machine_.postgres_pid)
    taken, size = asyncio.run(ask(app.port, request, times))
    used = meter.read(times)  # seconds for each 1,000 requests are milliseconds for each
    figures = (percentile(taken, 0.5), percentile(taken, 0.99), used["app_cpu"], used["postgres_cpu"])
    return taken, [f"{size / 1e3:.0f}", *(f"{value:.2f}" for value in figures)]


def examine_lists(machine_: Machine, url: str, *, requests: int, seed: int, title: str) -> Table:
    """Lists with mixed filters, as ``mixed`` draws them: a line for each kind, and one for all."""
    made = Table("mixed list", "requests", "p50 ms", "p99 ms", "most ms", "", title=title)
    with machine_.app(url, WORKER_CONCURRENCY=0) as app:
        app.wait_until_ready()
        cookie = asyncio.run(visit(app.port))
        for kinds, count, bar in (
            (mixed.KINDS, requests, BAR),
            (mixed.SEARCHES, max(requests // SEARCHES, 10), SEARCH_BAR),
        ):
            asks = mixed.draw(seed, count, kinds, days=rows.DAYS)
            asyncio.run(mixed.ask_all(app.port, asks[:100], cookie))  # warm
            found = asyncio.run(mixed.ask_all(app.port, asks, cookie))
            everything = {f"all {count:,}": [ms for taken in found.values() for ms in taken]}
            for kind, taken in sorted(found.items()) + list(everything.items()):
                taken.sort()
                figures = [percentile(taken, 0.5), percentile(taken, 0.99), taken[-1]]
                made.add_row(kind, f"{len(taken):,}", *(f"{ms:.2f}" for ms in figures), verdict(figures[1] <= bar))
            made.add_section()
    return made


def add_command(commands: Any) -> None:
    parser = commands.add_parser("reads", help=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="finished jobs (default 1,000,000)")
    parser.add_argument(
        "--waiting", type=int, default=100_000, help="live jobs, most of them waiting (default 100,000)"
    )
    parser.add_argument("--times", type=int, default=300, help="requests for each single read (default 300)")
    parser.add_argument("--requests", type=int, default=1_000, help="lists with mixed filters (default 1,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the mixed filters (default 1)")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 150, highlight=False)
    title = f"{args.rows:,} finished jobs, {args.waiting:,} live ones"
    with machine.machine(args.data) as machine_, machine_.database() as url:
        console.print(f"{machine_.describe()}\n")
        rows.add_finished(url, args.rows)
        mixed.add_live(url, args.waiting)
        console.print(examine_lists(machine_, url, requests=args.requests, seed=args.seed, title=title))
        console.print(examine(machine_, url, times=args.times, title=title))
