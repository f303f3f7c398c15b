"""Keeps the lease alive from a thread with a loop and a connection of its own, because it must live when the loop does not.

With each beat it asks Postgres what this process is running (the self-audit). It decides nothing: what it finds it hands to
the loop, which compares.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from uuid_utils.compat import uuid7

from jobflow.engine.lease import Lease, boottime
from jobflow.events import Events, LeaseLost, LoopBlocked
from jobflow.lifecycle import Run
from jobflow.pool import Connection
from jobflow.statements import SQL

SLOW = 5.0  # seconds without a move of the loop after which is said who holds it
BLOCKED = 60.0  # and after which the process stops calling itself alive


class Audit(msgspec.Struct, frozen=True):
    """What Postgres says this process runs. ``asked``: when the question was put, by ``boottime()``."""

    asked: float
    rows: Sequence[Any]


class Heartbeat:
    """``seen(audit)`` and ``failed(error)`` are called in the loop that started the heartbeat; ``holder(task)``, in the thread
    while that loop stands still in a task, returns the run whose handler it is, if it is one's."""

    def __init__(
        self,
        database_url: str,
        lease: Lease,
        events: Events,
        *,
        version: str,
        concurrency: int,
        types: Sequence[str],
        running: Callable[[], int],
        holder: Callable[[asyncio.Task[Any]], Run | None],
        seen: Callable[[Audit], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._url, self._lease, self._events = database_url, lease, events
        self._version, self._concurrency, self._types = version, concurrency, list(types)
        self._running, self._holder, self._seen, self._failed = running, holder, seen, failed
        self._period = lease.seconds / 5
        self._stopping = False
        self._told: float | None = None  # the standstill of the loop that was told last, by the last move before it
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Register this process and start beating. Raises what the first try to register raised."""
        loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = loop.create_future()
        main = threading.get_ident()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(loop, first, main)), name="heartbeat", daemon=True
        )
        self._thread.start()
        await first

    def hurry(self) -> None:
        """Beat and audit now instead of at the next period."""
        self._hurry.set()

    async def stop(self) -> None:
        self._stopping = True
        self._hurry.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._period + 10)

    async def _live(self, loop: asyncio.AbstractEventLoop, first: asyncio.Future[None], main: int) -> None:
        connection: Connection | None = None
        registered = False
        while not self._stopping:
            started = boottime()
            try:
                if connection is None:
                    connection = await self._connect()
                if not registered:
                    await self._register(connection)
                    registered = True
                    loop.call_soon_threadsafe(_resolve, first, None)
                if self._blocked(loop, main):
                    self._lease.doubt()
                else:
                    audit = await self._beat(connection)
                    loop.call_soon_threadsafe(self._seen, audit)
            except Exception as error:
                self._lease.doubt()
                if connection is not None:
                    connection.terminate()
                    connection = None
                if not registered:
                    loop.call_soon_threadsafe(_resolve, first, error)
                    return
                # One slow answer is no outage: on a busy machine it is we who are slow.
                slow = isinstance(error, TimeoutError) and started < self._lease.trust_until
                if not slow and not loop.is_closed():
                    loop.call_soon_threadsafe(self._failed, error)
            await self._rest(self._period - (boottime() - started) if connection else self._period / 3)
        if connection is not None:
            connection.terminate()

    async def _rest(self, seconds: float) -> None:
        # This loop has nothing else to do, so its thread may sleep as a whole.
        self._hurry.wait(max(seconds, 0.01))
        self._hurry.clear()

    async def _connect(self) -> Connection:
        return await asyncpg.connect(
            self._url,
            timeout=self._period,
            command_timeout=self._period,
            server_settings={"application_name": "jobflow"},
        )

    async def _register(self, connection: Connection) -> None:
        worker, started = uuid7(), boottime()
        row = await connection.fetchrow(
            SQL["register_worker"], worker, socket.gethostname(), os.getpid(), self._version, self._concurrency,
            self._types, self._lease.seconds,
        )  # fmt: skip
        assert row is not None  # noqa: S101  (an INSERT … RETURNING returns its row)
        self._lease.take(worker)
        self._lease.confirm(started, boottime(), row["now"])

    async def _beat(self, connection: Connection) -> Audit:
        started, worker = boottime(), self._lease.worker
        row = await connection.fetchrow(SQL["beat"], worker, self._lease.seconds, self._running())
        if row is None:
            # Marked lost. Never come back under the old id: what it claimed may have been rescued already.
            await self._register(connection)
            self._announce(worker)
            row = await connection.fetchrow(SQL["beat"], self._lease.worker, self._lease.seconds, self._running())
            assert row is not None  # noqa: S101  (registered on this connection just now)
        self._lease.confirm(started, boottime(), row["now"])
        self._lease.alive = row["alive"]
        rows = await connection.fetch(SQL["audit_runs"], list(self._lease.identities))
        return Audit(started, rows)

    def _announce(self, lost: UUID | None) -> None:
        if lost is not None and self._lease.worker is not None:
            self._events.emit(LeaseLost(lost, self._lease.worker))

    def _blocked(self, loop: asyncio.AbstractEventLoop, main: int) -> bool:
        """Whether the loop has stood still for so long that its jobs had better run elsewhere."""
        moved = self._lease.moved
        seconds = boottime() - moved
        if seconds >= SLOW and moved != self._told:
            self._told = moved
            frame, task = sys._current_frames().get(main), asyncio.current_task(loop)
            run = self._holder(task) if task is not None else None  # first: to write the stack lets the loop go on
            self._events.emit(LoopBlocked(seconds, "".join(traceback.format_stack(frame)) if frame else "", run))
        return seconds >= BLOCKED


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if not future.done():
        future.set_exception(error) if error is not None else future.set_result(None)
