"""First figures: the drain and both ways to enqueue, beside the bare loop, all in one run and in turns.

Ratios count: two numbers from different runs or machines cannot be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.machine import App, Machine

BULK = 1_000  # jobs in one POST /jobs/bulk

# Between the first and the last ending, as Postgres saw them.
DRAINED = "SELECT count(*) / extract(epoch FROM max(finished_at) - min(finished_at)) FROM jobs_done WHERE type = 'noop'"

TITLES = {
    "drain": "drain, 500 at once",
    "drain50": "drain, 50 at once (default)",
    "bare500": "bare loop, 500 at once",
    "bare": "bare loop, no bound",
    "bulk": "POST /jobs/bulk, 4 connections",
    "single": "POST /jobs, 64 connections",
}

Figures = dict[str, float]


def drain(machine_: Machine, jobs: int, concurrency: int) -> Figures:
    """Jobs per second of one application process that finds ``jobs`` ready ones in Postgres when it starts."""
    url = machine_.fresh()
    machine.preload(url, jobs)
    with machine_.app(url, WORKER_CONCURRENCY=concurrency) as app:
        speed = drained(app, url, jobs)
        return {"rate": speed, "memory": app.peak_memory(), "cpu_per_job": app.cpu() / jobs * 1e6}


def drained(app: App, url: str, jobs: int) -> float:
    """Jobs per second, once all are done. Raises SystemExit: some were not completed, or it took more than 300 s."""
    began = time.perf_counter()
    while asyncio.run(machine.fetch(url, "SELECT EXISTS (SELECT FROM jobs)")):
        app.check()
        if time.perf_counter() - began > 300:
            raise SystemExit("The drain did not end within 300 s.")
        time.sleep(0.1)
    return rate(url, jobs)


def bare(machine_: Machine, jobs: int, slots: int) -> Figures:
    url = machine_.fresh()
    machine.preload(url, jobs)
    log = str(machine_.folder / "bare.log")
    figures = machine.child(
        "bench.bare", "--log", log, "--slots", str(slots), DATABASE_URL=url, REDIS_URL=machine_.redis_url
    )
    return {"rate": rate(url, jobs), "cpu": figures["cpu"]}


def rate(url: str, jobs: int) -> float:
    done = asyncio.run(machine.fetch(url, "SELECT count(*) FROM jobs_done"))
    if done != jobs:
        raise SystemExit(f"{done} of {jobs} jobs were completed.")
    return float(asyncio.run(machine.fetch(url, DRAINED)))


def enqueue(machine_: Machine, requests: int, connections: int, bulk: int) -> Figures:
    """Jobs per second that one process accepts, each answer after its commit. It runs none meanwhile."""
    url = machine_.fresh()
    with machine_.app(url, WORKER_CONCURRENCY=0) as app:
        app.wait_until_ready()
        send = ["--port", str(app.port), "--connections", str(connections), "--bulk", str(bulk)]
        machine.child("bench.post", *send, "--requests", str(4 * connections))  # warm
        began = app.cpu()
        figures: Figures = machine.child("bench.post", *send, "--requests", str(requests))
        figures["app_cpu"] = (app.cpu() - began) / (requests * max(bulk, 1)) * 1e6
    stored = asyncio.run(machine.fetch(url, "SELECT count(*) FROM jobs"))
    if stored != (requests + 4 * connections) * max(bulk, 1):
        raise SystemExit(f"{stored} jobs are stored, not what was accepted.")
    return figures


def add_command(commands: Any) -> None:
    parser = commands.add_parser("first", help=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=60_000, help="jobs in one drain (default 60,000)")
    parser.add_argument("--requests", type=int, default=20_000, help="single POSTs in one measurement (default 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turns (default 3)")
    parser.add_argument("--only", nargs="+", choices=tuple(TITLES), help="only these")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    parts: dict[str, Callable[[Machine], Figures]] = {
        "drain": partial(drain, jobs=args.jobs, concurrency=500),
        "bare500": partial(bare, jobs=args.jobs, slots=500),
        "bare": partial(bare, jobs=args.jobs, slots=1_000_000),
        "drain50": partial(drain, jobs=args.jobs, concurrency=50),
        "bulk": partial(enqueue, requests=max(args.jobs // BULK, 4), connections=4, bulk=BULK),
        "single": partial(enqueue, requests=args.requests, connections=64, bulk=0),
    }
    wanted = [name for name in parts if not args.only or name in args.only]
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    measured: dict[str, list[Figures]] = {name: [] for name in wanted}
    steady = []
    with machine.machine(args.data) as machine_:
        console.print(f"{machine_.versions()}\n{os.cpu_count()} cores, {args.jobs:,} jobs, {args.rounds} rounds\n")
        for number in range(args.rounds):
            for name in wanted:
                steady.append(machine.steadiness())
                figures = parts[name](machine_)
                measured[name].append(figures)
                shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items() if key != "rate")
                console.print(
                    f"round {number + 1}: {name:8} {figures['rate']:10,.0f} jobs/s   {shown}", highlight=False
                )
    console.print(table(measured))
    spins, syncs = zip(*steady, strict=True)
    for what, values in (("a fixed piece of Python", spins), ("8 KB written and synced", syncs)):
        least, middle, most = machine.spread(values)
        console.print(
            f"machine: {what} {least:.2f} / {middle:.2f} / {most:.2f} ms (min / median / max)", highlight=False
        )


def table(measured: dict[str, list[Figures]]) -> Table:
    made = Table("measured", "min", "median", "max", title="jobs per second")
    bases = [name for name in ("bare500", "bare") if name in measured]
    for base in bases:
        made.add_column(f"of: {TITLES[base]}")
    for column in made.columns[1:]:
        column.justify = "right"
    for name, rounds in measured.items():
        row = [f"{value:,.0f}" for value in machine.spread(figures["rate"] for figures in rounds)]
        if name.startswith("drain"):
            row += [ratio(rounds, measured[base]) for base in bases]
        made.add_row(TITLES[name], *row)
    return made


def ratio(rounds: list[Figures], base: list[Figures]) -> str:
    """Round by round, since both of one round saw the same machine."""
    ratios = (a["rate"] / b["rate"] for a, b in zip(rounds, base, strict=True))
    least, middle, most = machine.spread(ratios)
    return f"{middle:.0%} ({least:.0%} to {most:.0%})"
