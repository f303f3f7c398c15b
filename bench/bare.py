"""The bare loop: the application's own statements for claim and completion and a pop from Redis, and nothing else.

Two pairs of connections, batches of at most 500. For each job a task, a timeout, a log line, counters and a result. What the
application drains less than this is the price of the rest: leases, limits, slots, shutdown, the web. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID, uuid4

import asyncpg
import msgspec
import redis.asyncio
import uvloop

from bench.processes import Meter
from jobflow.statements import SQL

BATCH = 500
LANE = "bench:lane"

Done = tuple[UUID, int, UUID, str]


class Slots:
    """How many jobs may be between their pop and the answer to their completion. What is free is taken at once."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._freed = asyncio.Event()

    async def take(self) -> int:
        while not self._free:
            self._freed.clear()
            await self._freed.wait()
        count = min(self._free, BATCH)
        self._free -= count
        return count

    def give(self, count: int) -> None:
        self._free += count
        self._freed.set()


class Pair:
    """One connection claims while the other completes what was claimed before."""

    def __init__(self, client: redis.asyncio.Redis, slots: Slots, log: IO[bytes]) -> None:
        self._client = client
        self._slots = slots
        self._log = log
        self._worker = uuid4()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._claimed: asyncio.Queue[list[asyncpg.Record]] = asyncio.Queue(1)
        self.completed = 0

    async def run(self, database_url: str) -> None:
        claims = await asyncpg.connect(database_url, ssl=False)
        endings = await asyncpg.connect(database_url, ssl=False)
        await claims.fetch(SQL["register_worker"], self._worker, "bench", os.getpid(), "bare", BATCH, ["noop"], 600.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claim(claims))
            group.create_task(self._complete(endings))
        await claims.close()
        await endings.close()

    async def _claim(self, connection: asyncpg.Connection[Any]) -> None:
        statement = await connection.prepare(SQL["claim_jobs"])
        while True:
            want = await self._slots.take()
            popped = cast("list[tuple[bytes, float]]", await self._client.zpopmin(LANE, want))
            self._slots.give(want - len(popped))
            if not popped:
                break
            ids = [UUID(bytes=member) for member, _ in popped]
            await self._claimed.put(await statement.fetch(ids, self._worker, "default"))
        await self._claimed.put([])

    async def _complete(self, connection: asyncpg.Connection[Any]) -> None:
        statement = await connection.prepare(SQL["complete_jobs"])
        while rows := await self._claimed.get():
            tasks = [asyncio.create_task(self._job(row)) for row in rows]
            ids, epochs, workers, results = zip(*[await task for task in tasks], strict=True)
            self.completed += len(await statement.fetch(ids, epochs, workers, results))
            self._slots.give(len(rows))

    async def _job(self, row: asyncpg.Record) -> Done:
        began = time.monotonic()
        json.loads(row["payload"])
        async with asyncio.timeout(row["timeout"]):
            value = await noop()
        result = msgspec.json.encode(value).decode()
        self._counts[row["type"], "completed"] += 1
        line = {
            "event": "job.completed",
            "job_id": row["id"],
            "type": row["type"],
            "queue": "default",
            "attempt": row["attempt"],
            "duration": time.monotonic() - began,
            "status": "completed",
            "worker": self._worker,
        }
        self._log.write(msgspec.json.encode(line) + b"\n")
        return row["id"], row["run_epoch"], self._worker, result


async def noop() -> dict[str, bool]:
    return {"ok": True}


async def fill(client: redis.asyncio.Redis, database_url: str) -> int:
    connection = await asyncpg.connect(database_url, ssl=False)
    rows = await connection.fetch("SELECT id, run_at FROM jobs")
    await connection.close()
    for first in range(0, len(rows), 5_000):
        await client.zadd(LANE, {row["id"].bytes: row["run_at"].timestamp() for row in rows[first : first + 5_000]})
    return len(rows)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--postgres", type=int, required=True, help="process id, for its processor time")
    parser.add_argument("--redis", type=int, required=True, help="process id")
    args = parser.parse_args()
    database_url = os.environ["DATABASE_URL"]
    client = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
    count = await fill(client, database_url)
    with args.log.open("wb", buffering=65536) as log:
        slots = Slots(args.slots)
        pairs = [Pair(client, slots, log) for _ in range(2)]
        meter = Meter(app=os.getpid(), postgres=args.postgres, redis=args.redis)
        await asyncio.gather(*(pair.run(database_url) for pair in pairs))
        figures = meter.read(count)
    await client.aclose()
    completed = sum(pair.completed for pair in pairs)
    if completed != count:
        raise SystemExit(f"the bare loop completed {completed} of {count} jobs")
    print(json.dumps(figures))


if __name__ == "__main__":
    uvloop.run(main())
