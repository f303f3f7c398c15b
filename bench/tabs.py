"""What open tabs cost a drain: 50 of them watch one instance, none the other; the two drain in turns.

Ratios count: both runs of a pair saw the same machine. Every tab holds its stream of hints and fetches its region again on
each, as a browser would; see ``tab.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.figures import Figures, percentile, spread, verdict
from bench.instance import Instance, instance
from bench.machine import Companion, module

PEOPLE = 10  # sessions that the tabs are spread over
BAR, LATENCY_BAR = 0.90, 150.0  # of the throughput without tabs · ms, p99 of what the tabs fetch


def open_tabs(port: int, count: int, jobs: list[str]) -> Companion:
    """The process of ``tab.py``, when its streams are open. It answers with what it fetched."""
    opened = Companion(*module("bench.tab"), "--port", port, "--people", PEOPLE, *pages(count, jobs))
    if opened.hear() != "ready\n":
        raise SystemExit("The tabs could not be opened.")
    return opened


def pages(count: int, jobs: list[str]) -> list[str]:
    """What ``count`` tabs show: half the overview, most others a list of jobs, a few one job, dead letters, queues."""
    few = [f"/dashboard/jobs/{jobs[0]}", f"/dashboard/jobs/{jobs[-1]}", "/dashboard/dlq", "/dashboard/queues"]
    shown = ["/dashboard"] * (count // 2) + few[: count // 5]
    lists = ["/dashboard/jobs", "/dashboard/jobs", "/dashboard/jobs?status=completed", "/dashboard/jobs?queue=default"]
    return shown + [lists[n % len(lists)] for n in range(count - len(shown))]


def watched(app: Instance, jobs: int, tabs: int) -> dict[str, Any]:
    """A drain with tabs open, and what those fetched between its first and its last ending."""
    kept = app.database.fetch("SELECT array_agg(id::text) FROM (SELECT id FROM jobs_done LIMIT 2) kept")
    opened = open_tabs(app.app.port, tabs, kept)
    try:
        figures: dict[str, Any] = drain(app, jobs)
    finally:
        heard = opened.end()
    if heard["streams"] != tabs or set(heard["statuses"]) - {"200", "304"}:
        raise SystemExit(f"Not what tabs should see: {heard['streams']} streams, answers {heard['statuses']}")
    during = [seconds for at, seconds in heard["sent"] if figures["first"] <= at <= figures["last"]]
    seconds = figures["last"] - figures["first"]
    return figures | {
        "latencies": during,
        "fetches": len(during) / seconds,
        "client": heard["cpu"] / heard["seconds"],
        "statuses": heard["statuses"],
    }


def drain(app: Instance, jobs: int) -> Figures:
    app.load(jobs)
    time.sleep(1.5)  # what the tabs heard of the storing is over
    return app.drain(jobs)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("tabs", help=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs in one drain (default 100,000)")
    parser.add_argument("--pairs", type=int, default=7, help="drains without and with tabs, in turns (default 7)")
    parser.add_argument("--tabs", type=int, default=50, help="open tabs (default 50)")
    parser.add_argument("--quick", action="store_true", help="2 pairs of 30,000 jobs")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.quick:
        args.jobs, args.pairs = 30_000, 2
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120, highlight=False)
    plain: list[Figures] = []
    with_tabs: list[dict[str, Any]] = []
    with machine.machine(args.data) as machine_, ExitStack() as stack:
        console.print(f"{machine_.describe()}\n{args.jobs:,} jobs, {args.tabs} tabs\n")
        alone = stack.enter_context(instance(machine_, WORKER_CONCURRENCY=500))
        seen = stack.enter_context(instance(machine_, valkey=machine_.second_valkey(), WORKER_CONCURRENCY=500))
        for app in (alone, seen):
            drain(app, 2_000)  # warm, and there are jobs to look at
        for number in range(args.pairs):
            plain.append(drain(alone, args.jobs))
            with_tabs.append(watched(seen, args.jobs, args.tabs))
            a, b = plain[-1], with_tabs[-1]
            console.print(
                f"pair {number + 1}: {a['rate']:8,.0f} jobs/s without, {b['rate']:8,.0f} with tabs: "
                f"{b['rate'] / a['rate']:.2f}   app CPU {a['app_cpu']:.3f} / {b['app_cpu']:.3f} s for 1,000 jobs, "
                f"{b['fetches']:.0f} fetches/s, tabs' own CPU {b['client']:.0%} of a core, "
                f"slowest {max(b['latencies'], default=0) * 1e3:.0f} ms"
            )
    console.print(table(plain, with_tabs))


def table(plain: list[Figures], with_tabs: list[dict[str, Any]]) -> Table:
    made = Table("measured", "min", "median", "max", "bar", "")
    for column in made.columns[1:4]:
        column.justify = "right"
    for title, rounds in (("jobs/s without tabs", plain), ("jobs/s with tabs", with_tabs)):
        made.add_row(title, *(f"{value:,.0f}" for value in spread(each["rate"] for each in rounds)))
    ratios = spread(b["rate"] / a["rate"] for a, b in zip(plain, with_tabs, strict=True))
    held = verdict(ratios.median >= BAR)
    made.add_row("of the throughput without", *(f"{value:.3f}" for value in ratios), f"≥ {BAR:.2f}", held)
    latencies = sorted(seconds * 1e3 for each in with_tabs for seconds in each["latencies"])
    p50, p99 = (percentile(latencies, share) for share in (0.5, 0.99))
    held = verdict(p99 <= LATENCY_BAR)
    made.add_row("fetches, ms: p50, p99, max", f"{p50:.1f}", f"{p99:.1f}", f"{latencies[-1]:.1f}", "p99 ≤ 150", held)
    fetches = spread(each["fetches"] for each in with_tabs)
    made.add_row("fetches/s", *(f"{value:.0f}" for value in fetches))
    statuses = sum((Counter(each["statuses"]) for each in with_tabs), Counter[str]())
    made.caption = f"{len(latencies)} fetches during the drains; all answers: {dict(statuses)}"
    return made
