"""The application's INSERT in a bare loop: how many jobs a second Postgres takes in transactions of a given size.

What the API accepts less than this is the price of HTTP, of checks and of the push to Redis. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time

import uvloop

from bench.figures import own_cpu
from bench.machine import new_jobs
from jobflow.lifecycle import NewJob
from jobflow.pool import Pool
from jobflow.store import Store


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="jobs for each statement, which is a transaction")
    parser.add_argument("--connections", type=int, required=True)
    args = parser.parse_args()
    jobs = list(new_jobs(args.jobs))
    batches = [jobs[first : first + args.batch] for first in range(0, len(jobs), args.batch)]
    pool = Pool(os.environ["DATABASE_URL"], shares={"bench": args.connections})
    store = Store(pool, "bench")

    async def insert() -> None:
        while batches:
            await store.insert_jobs(batches.pop())

    await asyncio.gather(*(store.insert_jobs(warm()) for _ in range(args.connections)))  # connect and prepare
    began, cpu = time.perf_counter(), own_cpu()
    await asyncio.gather(*(insert() for _ in range(args.connections)))
    seconds = time.perf_counter() - began
    await pool.close()
    print(json.dumps({"rate": args.jobs / seconds, "client": (own_cpu() - cpu) / seconds}))


def warm() -> list[NewJob]:
    return list(new_jobs(1))


if __name__ == "__main__":
    uvloop.run(main())
