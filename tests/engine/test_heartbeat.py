"""The lease is kept whatever the loop does, and given up when it has to be."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobflow.engine import heartbeat as module
from jobflow.engine.heartbeat import Audit, Heartbeat
from jobflow.engine.lease import Lease, boottime
from jobflow.events import Event, Events, LeaseLost, LoopBlocked
from jobflow.lifecycle import Run
from jobflow.pool import Connection
from tests.support.proxy import proxied
from tests.support.rows import add_job
from tests.support.runs import make_run
from tests.support.waiting import until

RUN = make_run()
SECONDS = 2.0  # of the lease: a beat each 0.4 s


class Process:
    """A heartbeat and what it told the loop."""

    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        self.lease = Lease(seconds)
        self.audits: list[Audit] = []
        self.failures: list[Exception] = []
        self.told_in: set[int] = set()
        self.holds: asyncio.Task[Any] | None = None  # the task that is a handler
        self.seen: list[Event] = []
        events = Events()
        events.subscribe(self.seen.extend)
        self.heartbeat = Heartbeat(
            url, self.lease, events, version="1.2", concurrency=7, types=["a", "b"],
            running=lambda: 3, holder=self._holder, seen=self._seen, failed=self.failures.append,
        )  # fmt: skip

    def _holder(self, task: asyncio.Task[Any]) -> Run | None:
        return RUN if task is self.holds else None

    def _seen(self, audit: Audit) -> None:
        self.told_in.add(threading.get_ident())
        self.audits.append(audit)

    @property
    def me(self) -> UUID:
        assert self.lease.worker
        return self.lease.worker

    async def beats(self, count: int = 1) -> Audit:
        """Wait for so many more audits."""
        wanted = len(self.audits) + count

        async def got() -> int:
            return len(self.audits)

        await until(got, lambda n: n >= wanted)
        return self.audits[-1]

    async def row(self) -> Any:
        """What the last audit says about the one run that there is."""
        return self.audits[-1].rows[0]

    def keep_moving(self) -> None:
        self.lease.moved = boottime() + 3600


@asynccontextmanager
async def beating(url: str, seconds: float = SECONDS) -> AsyncIterator[Process]:
    process = Process(url, seconds)
    process.keep_moving()
    try:
        await process.heartbeat.start()
        yield process
    finally:
        await process.heartbeat.stop()


async def left(database: Connection, worker: UUID) -> float:
    """Seconds until its lease lapses."""
    return float(
        await database.fetchval(
            "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM workers WHERE id = $1", worker
        )
    )


async def test_it_registers_and_is_trusted_when_it_has_started(database_url: str, database: Connection) -> None:
    async with beating(database_url) as process:
        row = await database.fetchrow("SELECT * FROM workers")
        assert row is not None
        assert (row["id"], row["state"], row["version"], row["concurrency"]) == (process.me, "alive", "1.2", 7)
        assert row["types"] == ["a", "b"]
        assert process.lease.trusted()
        await process.beats()
        assert await database.fetchval("SELECT running FROM workers") == 3
        assert process.lease.alive == 1
        before = await database.fetchval("SELECT clock_timestamp()")
        believed = process.lease.now()
        after = await database.fetchval("SELECT clock_timestamp()")
        assert before - timedelta(seconds=SECONDS) < believed <= after
        assert process.told_in == {threading.get_ident()}, "the loop compares, not the thread"


async def test_a_start_without_postgres_fails_and_leaves_no_thread() -> None:
    process = Process("postgresql://a:b@127.0.0.1:1/c")
    with pytest.raises(OSError, match="Connect"):
        await process.heartbeat.start()
    await process.heartbeat.stop()
    assert [t for t in threading.enumerate() if t.name == "heartbeat"] == []


async def test_each_beat_renews_the_lease_and_tells_what_runs(database_url: str, database: Connection) -> None:
    async with beating(database_url) as process:
        id = await add_job(database, "processing", locked_by=process.me)
        await add_job(database, "processing")  # somebody else's
        audit = await process.beats(2)
        assert [row["id"] for row in audit.rows] == [id]
        assert audit.rows[0]["cancel_requested"] is False
        assert boottime() - 10 < audit.asked < boottime()
        until_ = await database.fetchval("SELECT lease_until FROM workers")
        await process.beats(2)
        assert await database.fetchval("SELECT lease_until FROM workers") > until_
        await database.execute("UPDATE jobs SET cancel_requested_at = now()")
        assert await until(process.row, lambda row: row["cancel_requested"])


async def test_a_lease_that_lapsed_unmarked_is_revived(database_url: str, database: Connection) -> None:
    """An outage is not a death."""
    async with beating(database_url) as process:
        me = process.me
        await database.execute("UPDATE workers SET lease_until = now() - interval '1 hour'")
        await until(lambda: left(database, me), lambda seconds: seconds > 1)
        assert process.me == me
        assert await database.fetchval("SELECT count(*) FROM workers") == 1


async def test_who_was_marked_lost_goes_on_under_a_new_identity(database_url: str, database: Connection) -> None:
    async with beating(database_url) as process:
        old = process.me
        id = await add_job(database, "processing", locked_by=old)
        await database.execute("UPDATE workers SET state = 'lost'")

        async def me() -> UUID:
            return process.me

        await until(me, lambda now: now != old)
        audit = await process.beats()
        assert process.lease.identities == (old, process.me)
        assert process.seen == [LeaseLost(old, process.me)]
        states = dict(await database.fetch("SELECT id, state FROM workers"))
        assert states == {old: "lost", process.me: "alive"}
        assert [row["id"] for row in audit.rows] == [id], "runs keep the name they were claimed under"


async def test_a_connection_that_breaks_makes_it_doubt_and_is_replaced(database_url: str, database: Connection) -> None:
    async with beating(database_url) as process:
        await process.beats()
        since = process.lease.healthy_since
        pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobflow' AND datname = current_database()"
        (mine,) = await database.fetch(pid)
        await database.execute("SELECT pg_terminate_backend($1)", mine["pid"])

        async def healthy_since() -> float | None:
            return process.lease.healthy_since

        assert since is not None
        await until(healthy_since, lambda again: again is not None and again > since)
        await process.beats()
        assert len(process.failures) == 1
        assert len(process.lease.identities) == 1


async def test_a_server_that_does_not_answer_is_doubted_after_one_period_and_told_when_trust_ends(
    database_url: str, database: Connection
) -> None:
    async with proxied(database_url) as proxy, beating(proxy.url, seconds=5.0) as process:
        await process.beats()
        proxy.dropping = True
        began = time.monotonic()

        async def doubted() -> bool:
            return process.lease.healthy_since is None

        await until(doubted)
        assert process.failures == [], "on a busy machine one answer may come late"

        async def failed() -> int:
            return len(process.failures)

        await until(failed)
        assert time.monotonic() - began > 5.0 / 2
        assert not process.lease.trusted()
        proxy.dropping = False

        async def trusted() -> bool:
            return process.lease.trusted()

        await until(trusted)


async def test_it_beats_while_the_loop_stands_still(database_url: str, database: Connection) -> None:
    async with beating(database_url) as process:
        await process.beats()
        time.sleep(SECONDS * 1.5)  # noqa: ASYNC251  (that is what is tested)
        assert await left(database, process.me) > 0


async def test_a_loop_that_stands_still_for_too_long_costs_the_lease(
    database_url: str, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW", 0.5)
    monkeypatch.setattr(module, "BLOCKED", 0.5)
    async with beating(database_url) as process:
        await process.beats()
        process.holds = asyncio.current_task()
        process.lease.moved = boottime()
        time.sleep(0.5 + SECONDS + 0.8)  # noqa: ASYNC251
        blocked = [event for event in process.seen if isinstance(event, LoopBlocked)]
        assert blocked
        assert blocked[0].seconds >= 0.5
        assert "test_a_loop_that_stands_still" in blocked[0].stack, "it says where"
        assert blocked[0].run == RUN, "and for which job"
        assert len(blocked) == 1, "once"
        await until(lambda: left(database, process.me), lambda seconds: seconds < 0)
        assert not process.lease.trusted()
        assert not process.lease.healthy()
        process.keep_moving()
        await until(lambda: left(database, process.me), lambda seconds: seconds > 0)


async def test_an_audit_can_be_had_at_once(database_url: str, database: Connection) -> None:
    async with beating(database_url, seconds=100.0) as process:
        await process.beats()
        process.heartbeat.hurry()
        began = time.monotonic()
        await process.beats()
        assert time.monotonic() - began < 15


async def test_it_ends_when_it_is_told_to(database_url: str, database: Connection) -> None:
    async with beating(database_url, seconds=100.0) as process:
        await process.beats()
        began = time.monotonic()
        await process.heartbeat.stop()
        assert time.monotonic() - began < 15
        assert [t for t in threading.enumerate() if t.name == "heartbeat"] == []
