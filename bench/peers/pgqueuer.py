"""PgQueuer on asyncpg and uvloop, as many jobs for each statement as BENCH_CONCURRENCY says; a completed job's row is deleted."""

from __future__ import annotations

import json
import os
import sys
import time

import asyncpg
import pgqueuer  # type: ignore[import-not-found]  # in the run's folder
import uvloop
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]

from bench.peers.tally import BULK, Tally, stored


async def store(driver: AsyncpgDriver, jobs: int) -> None:
    queries = Queries(driver)
    await queries.install()
    began = time.perf_counter()
    for first in range(0, jobs, BULK):
        payloads = [
            json.dumps({"number": number, "to": "user@example.com", "subject": "Hello"}).encode()
            for number in range(first, min(first + BULK, jobs))
        ]
        await queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))
    stored(jobs, began)


async def work(driver: AsyncpgDriver, jobs: int) -> None:
    queue, tally = pgqueuer.PgQueuer(driver), Tally(jobs)

    @queue.entrypoint("noop")  # type: ignore[untyped-decorator]
    async def noop(job: pgqueuer.Job) -> None:
        json.loads(job.payload)
        tally()

    await queue.run(batch_size=int(os.environ["BENCH_CONCURRENCY"]))


async def main() -> None:
    verb, jobs = sys.argv[1], int(sys.argv[2])
    driver = AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"], ssl=False))
    await (store if verb == "store" else work)(driver, jobs)


if __name__ == "__main__":
    uvloop.run(main())
