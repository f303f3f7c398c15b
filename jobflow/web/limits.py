"""The rate limit: a sliding window per client in Redis, shared by all processes, and in memory while Redis is away.

Headers and problem type: draft-ietf-httpapi-ratelimit-headers (``RateLimit-Policy``, ``RateLimit``).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from jobflow.errors import BrokerUnavailable
from jobflow.web.problems import Refused

Take = Callable[[str, int, int, float], Awaitable[tuple[int, int, float]]]

PATIENCE = 0.5  # seconds a request waits for Redis before its process counts by itself
PAUSE = 1.0  # seconds until Redis is asked again
SLICES = 100  # of the window in memory: a slot comes back at most 1 % of the window late
CLIENTS = 50_000  # remembered in memory; beyond, the one seen first is forgotten


class Verdict(NamedTuple):
    """``reset``: whole seconds until the next slot comes free; the earliest moment when trying again makes sense."""

    granted: bool
    headers: list[tuple[bytes, bytes]]
    reset: int


class RateLimiter:
    """Counts requests. While one question about a client is under way, its next requests gather for the next one."""

    def __init__(self, take: Take, *, limit: int, window: float, live_processes: Callable[[], int]) -> None:
        self._take, self._limit, self._window, self._live = take, limit, window, live_processes
        self._policy = (b"ratelimit-policy", b'"default";q=%d;w=%d' % (limit, math.ceil(window)))
        self._waiting: dict[str, list[asyncio.Future[Verdict]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._local = LocalWindow(window)
        self._ask_again = 0.0

    async def check(self, client: str) -> Verdict:
        """Count one request of this client. Never raises for Redis; takes 0.5 s at most."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Verdict] = loop.create_future()
        if client in self._waiting:
            self._waiting[client].append(future)
        else:
            self._waiting[client] = [future]
            task = loop.create_task(self._serve(client))  # begins in the next turn: this turn's others come along
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    def refusal(self, verdict: Verdict) -> Refused:
        return Refused(
            429,
            f"More than {self._limit} POSTs in {self._window:g} s. Wait {verdict.reset} s, send jobs together by "
            "POST /jobs/bulk, or raise RATE_LIMIT_MAX.",
            {"Retry-After": str(verdict.reset)},
            **{"violated-policies": ["default"]},
        )

    async def _serve(self, client: str) -> None:
        futures: list[asyncio.Future[Verdict]] = []
        try:
            while futures := self._waiting[client]:
                self._waiting[client] = []
                granted, remaining, reset = await self._count(client, len(futures))
                for number, future in enumerate(futures):
                    if not future.done():  # its request may be gone
                        left = remaining + max(granted - number - 1, 0)
                        future.set_result(self._verdict(number < granted, left, math.ceil(max(reset, 1))))
        except BaseException as error:
            for future in futures + self._waiting[client]:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            del self._waiting[client]

    def _verdict(self, granted: bool, remaining: int, reset: int) -> Verdict:
        return Verdict(granted, [self._policy, (b"ratelimit", b'"default";r=%d;t=%d' % (remaining, reset))], reset)

    async def _count(self, client: str, wanted: int) -> tuple[int, int, float]:
        now = time.monotonic()
        if now >= self._ask_again:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._take(client, wanted, self._limit, self._window)
            except (BrokerUnavailable, TimeoutError):
                now = time.monotonic()
                self._ask_again = now + PAUSE
        return self._local.take(client, wanted, max(self._limit // max(self._live(), 1), 1), now)


class LocalWindow:
    """The same window in this process alone. Refused requests are not counted, so a client that goes on gets through."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._slice = window / SLICES  # seconds
        self._clients: dict[str, deque[list[int]]] = {}  # [slice number, requests granted in it], oldest first

    def take(self, client: str, wanted: int, limit: int, now: float) -> tuple[int, int, float]:
        """(granted, remaining, seconds until the next slot comes free). ``now``: monotonic seconds."""
        current = int(now / self._slice)
        if client not in self._clients:
            self._forget(current)
        counts = self._clients.setdefault(client, deque())
        while counts and counts[0][0] < current - SLICES:
            counts.popleft()
        used = sum(count for _, count in counts)
        granted = max(min(wanted, limit - used), 0)
        if granted:
            if counts and counts[-1][0] == current:
                counts[-1][1] += granted
            else:
                counts.append([current, granted])
        reset = (counts[0][0] + SLICES + 1) * self._slice - now if counts else self._window
        return granted, max(limit - used - granted, 0), reset

    def _forget(self, current: int) -> None:
        if len(self._clients) < CLIENTS:
            return
        stale = [name for name, counts in self._clients.items() if not counts or counts[-1][0] < current - SLICES]
        for name in stale or [next(iter(self._clients))]:
            del self._clients[name]
