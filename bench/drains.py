"""How fast jobs that wait are run: by one application process, and by the bare loop."""

from __future__ import annotations

from bench import machine
from bench.database import Database
from bench.figures import Figures, rate
from bench.instance import instance
from bench.machine import Machine


def drain(
    machine_: Machine, jobs: int, type: str = "noop", *, concurrency: int = 500, padding: int = 0, redis: bool = True
) -> Figures:
    """Jobs per second of a process that is up and finds ``jobs`` ready ones in Postgres.

    padding: bytes of payload more. redis: False stops it before.
    """
    with instance(machine_, WORKER_CONCURRENCY=concurrency) as app:
        app.load(jobs, type, padding)
        if not redis:
            app.valkey.stop()
        try:
            return app.drain(jobs) | app.sizes(jobs)
        finally:
            if not redis:
                app.valkey.start()


def bare(machine_: Machine, jobs: int, *, slots: int) -> Figures:
    """The same work by ``bare.py`` with ``slots`` jobs in flight: the ceiling."""
    with machine_.database() as url:
        machine.preload(url, jobs)
        figures: Figures = machine.child(
            "bench.bare",
            *("--log", machine_.folder / "bare.log", "--slots", slots),
            *("--postgres", machine_.postgres_pid, "--redis", machine_.redis_pid),
            DATABASE_URL=url,
            REDIS_URL=machine_.redis_url,
        )
        database = Database(url)
        ended = database.ended(jobs)
        database.close()
    return figures | {"rate": rate(jobs, **ended)}
