"""How fast jobs are accepted, accepted and run at once, and how soon a job starts when nothing else is going on."""

from __future__ import annotations

from bench import machine
from bench.figures import Figures
from bench.instance import Instance, instance
from bench.machine import Machine

CONNECTIONS = (1, 16, 64, 256)
BULK = 1_000  # jobs in one POST /jobs/bulk


def single(machine_: Machine, jobs: int) -> Figures:
    """Jobs per second by POST /jobs over 1 to 256 connections; the process runs none meanwhile."""
    figures: Figures = {}
    with instance(machine_, WORKER_CONCURRENCY=0) as app:
        app.post(jobs=300, connections=16)  # warm
        for connections in CONNECTIONS:
            sent = app.post(jobs=jobs // 5 if connections == 1 else jobs, connections=connections)
            figures |= {f"{name}_{connections}": value for name, value in sent.items()}
        check(app)
    return figures


def bulk(machine_: Machine, jobs: int) -> Figures:
    """Jobs per second by POST /jobs/bulk; the process runs none meanwhile."""
    with instance(machine_, WORKER_CONCURRENCY=0) as app:
        app.post(jobs=4 * BULK, connections=4, bulk=BULK)  # warm
        figures = app.post(jobs=max(jobs, 4 * BULK), connections=4, bulk=BULK)
        check(app)
        return figures | app.redis_memory() | {"memory": app.app.peak_memory()}


def check(app: Instance) -> None:
    """What was answered with 201 is there, and counted."""
    stored, counted = app.database.fetch("SELECT count(*) FROM jobs"), app.database.accepted()
    if stored != counted:
        raise SystemExit(f"{stored} jobs are stored and {counted} are counted.")


def inserts(machine_: Machine, jobs: int, *, batch: int, connections: int) -> Figures:
    """Jobs per second by the application's INSERT and nothing else: the ceiling."""
    with machine_.database() as url:
        options = ("--jobs", jobs, "--batch", batch, "--connections", connections)
        return machine.child("bench.inserts", *options, DATABASE_URL=url)


def steady(machine_: Machine, jobs: int, *, connections: int, bulk: int = 0) -> Figures:
    """Jobs per second that come in and are run at once, from the first request to the last ending."""
    with instance(machine_, WORKER_CONCURRENCY=500) as app:
        app.release()
        return app.posted(jobs=jobs, connections=connections, bulk=bulk)


def idle(machine_: Machine, jobs: int) -> Figures:
    """Milliseconds from a POST to the start of its handler."""
    with instance(machine_) as app:
        app.release()
        return app.latency(jobs)


def naps(machine_: Machine, jobs: int, *, concurrency: int) -> Figures:
    """Seconds from the first claim of ``jobs`` that take 100 ms each to the last ending."""
    with instance(machine_, WORKER_CONCURRENCY=concurrency) as app:
        app.load(jobs, "nap")
        figures = app.drain(jobs)
        began = app.database.fetch("SELECT extract(epoch FROM min(started_at))::float8 FROM jobs_done")
        return figures | {"seconds": figures["last"] - began}
