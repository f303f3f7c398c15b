"""Sends requests at fixed times, however long the answers take, and measures each from the time it should have gone.

A request that is slow delays none: the next one goes over another connection, as if from another client. A process of its own.
It sends jobs until there were enough, or jobs and pages until the standard input ends. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

import uvloop

from bench.client import HTML, Client, cookie_of, get, post_job
from bench.figures import own_cpu

EVERY = 0.02  # seconds between two POSTs
PAGE_EVERY = 0.05  # seconds between two pages
PAGES = ("/dashboard", "/dashboard/jobs", "/dashboard/jobs?status=completed", "/dashboard/queues", "/dashboard/workers")

Latencies = list[tuple[float, float]]  # (seconds since 1970, seconds)

told_to_end = threading.Event()


class Sender:
    """Keeps connections that are free for the next request."""

    def __init__(self, port: int, status: int) -> None:
        self.latencies: Latencies = []
        self._port, self._status = port, status
        self._free: list[Client] = []

    async def send(self, request: bytes, due: float) -> None:
        """due: when it should have gone, of ``time.perf_counter()``. Raises SystemExit: another status than expected."""
        client = self._free.pop() if self._free else Client(self._port)
        answer = await client.ask(request)
        if answer.status != self._status:
            raise SystemExit(f"answered {answer.status}: {answer.head.decode()}")
        self.latencies.append((time.time(), time.perf_counter() - due))
        self._free.append(client)

    async def at_pace(self, numbers: Iterator[int], every: float, request: Callable[[int], bytes]) -> Latencies:
        began = time.perf_counter() + every
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                due = began + number * every
                await asyncio.sleep(due - time.perf_counter())
                group.create_task(self.send(request(number), due))
        for client in self._free:
            client.close()
        return self.latencies


async def post_jobs(port: int, numbers: Iterator[int]) -> Latencies:
    """Each job's payload says when it was sent."""
    return await Sender(port, 201).at_pace(numbers, EVERY, lambda number: post_job("stamp", {"sent": time.time()}))


async def get_pages(port: int, numbers: Iterator[int]) -> Latencies:
    client = Client(port)
    headers = f"{HTML}Cookie: {cookie_of(await client.ask(get(PAGES[0], HTML)))}\r\n"
    client.close()
    return await Sender(port, 200).at_pace(numbers, PAGE_EVERY, lambda number: get(PAGES[number % len(PAGES)], headers))


def until_told() -> Iterator[int]:
    return itertools.takewhile(lambda number: not told_to_end.is_set(), itertools.count())


def listen() -> None:
    sys.stdin.read()
    told_to_end.set()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=0, help="how many; 0: jobs and pages until the standard input ends")
    args = parser.parse_args()
    cpu, began = own_cpu(), time.perf_counter()
    latencies = {}
    if args.jobs:
        await post_jobs(args.port, iter(range(args.jobs)))
    else:
        threading.Thread(target=listen, daemon=True).start()
        posts, pages = await asyncio.gather(post_jobs(args.port, until_told()), get_pages(args.port, until_told()))
        latencies = {"posts": posts, "pages": pages}
    print(json.dumps({"client": (own_cpu() - cpu) / (time.perf_counter() - began)} | latencies))


if __name__ == "__main__":
    uvloop.run(main())
