"""One application process that stays up, with a database of its own: jobs are stored, let go, and counted when done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import redis
import uuid_utils

from bench import machine
from bench.database import SIZES, Database
from bench.figures import Figures, rate
from bench.machine import App, Machine
from bench.processes import Meter, memory_of
from jobflow.broker import lane_key
from jobflow.embedded.valkey import Valkey

TIMEOUT = 600.0  # seconds until we give up
SEEN = 1.5  # seconds until a process has read the table of queues again
LOOK = 0.1  # seconds between two looks at the counters
HOLD = "UPDATE queues SET paused_at = now() WHERE name = 'default'"
RELEASE = "UPDATE queues SET paused_at = NULL WHERE name = 'default'"
LATENCY = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50, percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99,
       max(ms) AS most
FROM (SELECT ((result ->> 'began')::float8 - (payload ->> 'sent')::float8) * 1000 AS ms
      FROM jobs_done WHERE id >= $1 AND type = 'stamp') waits
"""


class Instance:
    """Made by ``instance``. Its only queue is called default and is held until something releases it."""

    def __init__(self, machine_: Machine, url: str, valkey: Valkey, settings: dict[str, Any]) -> None:
        self.url, self.valkey = url, valkey
        self._postgres = machine_.postgres
        self.database = Database(url)
        self.database.execute("INSERT INTO queues (name, paused_at) VALUES ('default', now())")
        with redis.Redis.from_url(valkey.url) as client:
            client.flushall()
        log = machine_.folder / f"{url.rpartition('/')[2]}.log"
        self.app = App(log, url, valkey.url, settings)
        self.wal = self.database.wal()

    # ---- the queue ---------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Start no job any more, and return when the application has seen it."""
        self.database.execute(HOLD)
        time.sleep(SEEN)

    def release(self) -> None:
        """Let the queue go and return when the application has seen it."""
        self.database.execute(RELEASE)
        self.posted(jobs=1, connections=1)

    def load(self, jobs: int, type: str = "noop", padding: int = 0, *, analyze: bool = False) -> None:
        """Store jobs that are ready, in Postgres alone: no lane is open, as after a crash of Redis."""
        self.database.execute("VACUUM jobs")
        machine.preload(self.url, jobs, type, padding)
        if analyze:
            self.database.execute("ANALYZE jobs")
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def clear(self) -> None:
        """Forget what was completed, as long as nothing waits."""
        self.database.execute("TRUNCATE jobs_done, counters, counter_deltas, counter_minutes")

    # ---- measured ----------------------------------------------------------------------------------------------------

    def drain(self, jobs: int) -> Figures:
        """Let go until ``jobs`` more are completed, then hold again; nothing but the first ``jobs`` counts."""
        first = self.database.fetch("SELECT id FROM jobs ORDER BY id LIMIT 1")
        began = self.database.fetch("SELECT clock_timestamp()")
        meter, target = self.meter(), self.database.completed() + jobs
        self.database.execute(RELEASE)
        self.wait(target)
        self.database.execute(HOLD)
        figures = meter.read(jobs)
        ended = self.database.ended(jobs, first=first, since=began)
        return figures | ended | {"rate": rate(jobs, **ended), "memory": self.app.peak_memory()}

    def posted(self, *, jobs: int, connections: int, bulk: int = 0) -> Figures:
        """Send ``jobs`` and wait until they are done. Jobs per second, from the first request to the last ending."""
        jobs -= jobs % max(bulk, 1)
        first = new_id()
        meter, target = self.meter(), self.database.completed() + jobs
        began = self.database.fetch("SELECT clock_timestamp()")
        figures = self.post(jobs=jobs, connections=connections, bulk=bulk)
        self.wait(target)
        used = meter.read(jobs)
        ended = self.database.ended(jobs, first=first, since=began)
        done = {"rate": rate(jobs, figures["began"], ended["last"]), "accepted": figures["rate"]}
        return figures | used | done | {"memory": self.app.peak_memory()}

    def post(self, *, jobs: int, connections: int, bulk: int = 0) -> Figures:
        """Send ``jobs`` as fast as they are answered: how many per second, and what the sender used of a core."""
        requests = jobs // bulk if bulk else jobs
        meter = self.meter()
        options = ["--connections", connections, "--requests", requests, "--bulk", bulk]
        figures: Figures = machine.child("bench.post", "--port", self.app.port, *options)
        return figures | meter.read(requests * max(bulk, 1))

    def latency(self, jobs: int) -> Figures:
        """Milliseconds from a POST to the start of the handler, one job every 20 ms: p50, p99, most."""
        first, target = new_id(), self.database.completed() + jobs
        figures: Figures = machine.child("bench.pace", "--port", self.app.port, "--jobs", jobs)
        self.wait(target)
        return figures | self.database.row(LATENCY, first)

    def sizes(self, jobs: int) -> Figures:
        """Bytes per job: of log since the instance was made, of table and of index now that all are completed."""
        kept = self.database.row(SIZES)
        written = self.database.wal() - self.wal
        return {"wal": written / jobs, "table": kept["table"] / jobs, "index": kept["index"] / jobs}

    def redis_memory(self) -> Figures:
        """Bytes per id in the lane of ordinary jobs, and MB of all that Redis uses."""
        with redis.Redis.from_url(self.valkey.url) as client:
            lane = lane_key("default", 5)
            used, ids = client.memory_usage(lane, samples=0) or 0, client.zcard(lane)
            megabytes = client.info("memory")["used_memory"] / 1e6
        return {"redis_bytes": used / max(ids, 1), "redis_ids": ids, "redis_memory": megabytes}

    def memory(self) -> float:
        """MB resident now."""
        return memory_of(self.app.pid)

    # ---- the process --------------------------------------------------------------------------------------------------

    def meter(self) -> Meter:
        pids = {"app": self.app.pid}
        for name, server in (("postgres", self._postgres), ("redis", self.valkey)):
            if server.process is not None:
                pids[name] = server.process.pid
        return Meter(**pids)

    def wait(self, completed: int) -> None:
        """Until so many jobs are completed. Raises SystemExit: the application ended, or it took too long."""
        give_up = time.monotonic() + TIMEOUT
        while self.database.completed() < completed:
            self.app.check()
            if time.monotonic() > give_up:
                raise SystemExit(f"{completed - self.database.completed()} jobs were not done within {TIMEOUT:.0f} s.")
            time.sleep(LOOK)

    def close(self) -> None:
        self.app.stop()
        self.database.close()


@contextmanager
def instance(
    machine_: Machine, *, valkey: Valkey | None = None, rows: Callable[[str], None] | None = None, **settings: Any
) -> Iterator[Instance]:
    """An application that is ready, on a new database; both go with the block.

    valkey: its Redis; None: the machine's. rows: fills the database (its url) before the application starts.
    """
    with machine_.database() as url:
        if rows is not None:
            rows(url)
            machine_.checkpoint()
        made = Instance(machine_, url, valkey or machine_.valkey, settings)
        try:
            made.app.wait_until_ready()
            yield made
        finally:
            made.close()


def new_id() -> UUID:
    """Ids made from now on are greater."""
    return UUID(int=uuid_utils.uuid7().int)
