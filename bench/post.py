"""Sends the same requests over and over, as fast as they are answered: bytes made beforehand, no HTTP library.

A process of its own, so that it is seen whether the client is the limit. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import cast

import uvloop

from bench.client import LENGTH, post_bulk, post_job
from bench.figures import own_cpu, percentile


class Connection(asyncio.Protocol):
    """One request at a time until all are sent."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._received = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        if self._run.left:
            self._run.left -= 1
            self._sent = time.perf_counter()
            self._transport.write(self._run.request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self._received, 0, end)
        if length is None or len(self._received) < end + 4 + int(length[1]):
            return
        self._run.answered(self._received, time.perf_counter() - self._sent)
        self._received = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.closed()


class Run:
    """What all connections share."""

    def __init__(self, request: bytes, requests: int, connections: int) -> None:
        self.request = request
        self.left = requests
        self.latencies: list[float] = []
        self.refused: bytes = b""
        self._open = connections
        self.done = asyncio.get_running_loop().create_future()

    def answered(self, answer: bytes, seconds: float) -> None:
        if answer.startswith(b"HTTP/1.1 201"):
            self.latencies.append(seconds)
        else:
            self.refused = answer[:2000]
            self.left = 0

    def closed(self) -> None:
        self._open -= 1
        if not self._open:
            self.done.set_result(None)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--bulk", type=int, default=0, help="jobs in each request; 0: POST /jobs")
    args = parser.parse_args()
    run = Run(post_bulk(args.bulk) if args.bulk else post_job(), args.requests, args.connections)
    loop = asyncio.get_running_loop()
    at, began, cpu = time.time(), time.perf_counter(), own_cpu()
    for _ in range(args.connections):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", args.port)
    await run.done
    seconds = time.perf_counter() - began
    if len(run.latencies) != args.requests:
        raise SystemExit(f"{len(run.latencies)} of {args.requests} accepted; the first refusal: {run.refused.decode()}")
    ordered = sorted(run.latencies)
    figures = {
        "rate": args.requests * max(args.bulk, 1) / seconds,
        "p50": percentile(ordered, 0.5) * 1e3,
        "p99": percentile(ordered, 0.99) * 1e3,
        "client": (own_cpu() - cpu) / seconds,
        "began": at,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    uvloop.run(main())
