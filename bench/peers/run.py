"""A drain by another system: its jobs are stored by its own bulk call, then one worker process is started.

Jobs per second count from its first handler to its last; that the last ending is stored as well is waited for and not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.database import Database
from bench.figures import Figures
from bench.machine import CHECKOUT, Companion, Machine
from bench.peers.install import install_node, install_python
from bench.processes import Meter, memory_of
from bench.scenarios import Line, Scenario

HERE = Path(__file__).parent
TIMEOUT = 120.0  # seconds until everything has ended


class Peer(NamedTuple):
    """``command``: its adapter, given the folder it is installed in. ``left``: how many jobs have not ended, by SQL; or, as
    ``done``, the key of a sorted set that holds those that have."""

    title: str
    concurrency: int
    packages: tuple[str, ...]
    install: Callable[..., None]
    command: tuple[str, ...]
    left: str = ""
    done: str = ""


PEERS = {
    "pgqueuer": Peer(
        "PgQueuer, batches of 500",
        500,
        ("pgqueuer[asyncpg]==1.6.0", "uvloop"),
        install_python,
        (sys.executable, "-m", "bench.peers.pgqueuer"),
        left="SELECT count(*) FROM pgqueuer",
    ),
    "bullmq": Peer(
        "BullMQ (Redis alone), 300 at once",
        300,
        ("bullmq@6.7.0", "ioredis@5"),
        install_node,
        ("node", str(HERE / "bullmq.cjs")),
        done="bull:bench:completed",
    ),
    "graphile-worker": Peer(
        "graphile-worker, batch mode, 24 at once",
        24,
        ("graphile-worker@0.17.3",),
        install_node,
        ("node", str(HERE / "graphile_worker.cjs")),
        left="SELECT count(*) FROM graphile_worker._private_jobs",
    ),
}


def wanted(names: Iterable[str]) -> dict[str, Peer]:
    """names: of PEERS, or ``all``."""
    return PEERS if "all" in names else {name: PEERS[name] for name in PEERS if name in names}


def scenarios(names: Iterable[str], jobs: int) -> list[Scenario]:
    return [
        Scenario(
            name,
            jobs,
            partial(drain, name=name),
            (
                Line(peer.title, ceilings=("drain",), most_share=1.0),
                Line("  stored by it in bulk", "stored"),
            ),
        )
        for name, peer in wanted(names).items()
    ]


def install(machine_: Machine, names: Iterable[str]) -> None:
    """Raises SystemExit: one could not be installed. It says what is missing, before anything has been measured."""
    for name, peer in wanted(names).items():
        print(f"Installing {name} into the run's folder ...", file=sys.stderr)
        peer.install(machine_.folder / name, *peer.packages)


def drain(machine_: Machine, jobs: int, *, name: str) -> Figures:
    """Raises SystemExit: it did not run all jobs."""
    peer, folder = PEERS[name], machine_.folder / name
    with redis.Redis.from_url(machine_.redis_url) as client, machine_.database(migrated=False) as url:
        client.flushall()
        database = Database(url)
        env = {
            "DATABASE_URL": url,
            "REDIS_URL": machine_.redis_url,
            "BENCH_CONCURRENCY": str(peer.concurrency),
            "PYTHONPATH": os.pathsep.join((str(folder), str(CHECKOUT))),
            "NODE_PATH": str(folder / "node_modules"),
            "NODE_ENV": "production",
        }
        stored = Companion(*peer.command, "store", jobs, **env).end()
        meter = Meter(postgres=machine_.postgres_pid, redis=machine_.redis_pid)
        figures = work(peer, env, jobs, lambda: unfinished(peer, database, client, jobs))
        database.close()
    return figures | meter.read(jobs) | {"stored": stored["rate"]}


def work(peer: Peer, env: dict[str, str], jobs: int, left: Callable[[], int]) -> Figures:
    """One worker process, which says how it went after its last handler, and stays until every ending is stored."""
    worker = subprocess.Popen(
        [*peer.command, "work", str(jobs)], cwd=CHECKOUT, env=os.environ | env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        line = next((text for text in worker.stdout if text.startswith("{")), "")
        if not line:
            raise SystemExit(f"{peer.title}: the worker ended with {worker.poll()}")
        memory = memory_of(worker.pid, peak=True)
        give_up = time.monotonic() + TIMEOUT
        while left():
            if time.monotonic() > give_up:
                raise SystemExit(f"{peer.title}: {left()} jobs have not ended.")
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    figures: Figures = json.loads(line)
    return figures | {"memory": memory}


def unfinished(peer: Peer, database: Database, client: Any, jobs: int) -> int:
    left: int = database.fetch(peer.left) if peer.left else jobs - client.zcard(peer.done)
    return left
