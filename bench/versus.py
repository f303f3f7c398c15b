"""Two trees of Jobflow against each other: drains in turns, A B A B, judged by the median of the pairs' ratios.

Shows what a change costs or gains. Each tree migrates and fills a database of its own, so they may differ in their schema.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis
from rich.console import Console

from bench import machine
from bench.database import Database
from bench.figures import rate, spread
from bench.machine import CHECKOUT, Machine

TIMEOUT = 300.0  # seconds for one drain
PREPARE = """\
import asyncio, sys
from bench import machine
from jobflow.migrate import upgrade
url, jobs = sys.argv[1:]
asyncio.run(upgrade(url))
machine.preload(url, int(jobs))
"""


def drain(machine_: Machine, tree: Path, jobs: int, concurrency: int) -> float:
    """Jobs per second of one application process of ``tree``, which finds them when it starts."""
    with machine_.database(migrated=False) as url:
        subprocess.run(
            [sys.executable, "-c", PREPARE, url, str(jobs)],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            check=True,
        )
        with redis.Redis.from_url(machine_.redis_url) as client:
            client.flushall()
        database = Database(url)
        with machine_.app(url, tree=tree, WORKER_CONCURRENCY=concurrency) as app:
            give_up = time.monotonic() + TIMEOUT
            while database.fetch("SELECT EXISTS (SELECT FROM jobs)"):
                app.check()
                if time.monotonic() > give_up:
                    raise SystemExit(f"The drain did not end within {TIMEOUT:.0f} s.")
                time.sleep(0.1)
        ended = database.ended(jobs)
        database.close()
    return rate(jobs, **ended)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("versus", help=__doc__.partition("\n")[0])
    parser.add_argument("a", type=Path, help="a checkout, the base of the ratios")
    parser.add_argument("b", type=Path, nargs="?", default=CHECKOUT, help="another one (default: this)")
    parser.add_argument("--pairs", type=int, default=7, help="drains of each (default 7)")
    parser.add_argument("--jobs", type=int, default=60_000, help="jobs in one drain (default 60,000)")
    parser.add_argument("--concurrency", type=int, default=500, help="WORKER_CONCURRENCY (default 500)")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    console = Console(soft_wrap=True, highlight=False)
    trees = [args.a.resolve(), args.b.resolve()]
    ratios = []
    with machine.machine(args.data) as machine_:
        console.print(machine_.describe())
        for number in range(args.pairs):
            a, b = (drain(machine_, tree, args.jobs, args.concurrency) for tree in trees)
            ratios.append(b / a)
            console.print(f"pair {number + 1}: A {a:9,.0f}   B {b:9,.0f} jobs/s   B/A {b / a:.2f}")
    least, middle, most = spread(ratios)
    console.print(f"B/A: median {middle:.2f} ({least:.2f} to {most:.2f}) over {args.pairs} pairs of {args.jobs:,} jobs")
