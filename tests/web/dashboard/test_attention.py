"""What needs attention, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from jobflow.events import TransactionHeld
from jobflow.overview import Minute, Queue, Worker
from jobflow.web.dashboard.attention import SHOWN, find_notices

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def queue(**changes: Any) -> Queue:
    usual: dict[str, Any] = {
        "name": "mail", "by_status": {}, "ready": 0, "oldest_ready_age": None, "in_per_second": 0.0,
        "out_per_second": 0.0, "paused": False, "paused_reason": None, "paused_until": None, "created_at": NOW,
    }  # fmt: skip
    return Queue(**usual | changes)


def worker(**changes: Any) -> Worker:
    usual: dict[str, Any] = {
        "id": uuid4(), "kind": "process", "host": "h", "pid": 7, "version": "1", "state": "alive", "late": False,
        "concurrency": 5, "running": 2, "types": (), "started_at": NOW, "beat_at": NOW, "lease_until": NOW,
    }  # fmt: skip
    return Worker(**usual | changes)


def texts(
    queues: Any = (), workers: Any = None, dead: int = 0, broker_up: bool = True, held: TransactionHeld | None = None
) -> list[str]:
    minutes = [Minute(minute=NOW, entered=9, completed=9, failed=9, dead=dead)]
    found = find_notices(queues, [worker()] if workers is None else workers, minutes, broker_up=broker_up, held=held)
    return [f"{notice.tone}: {notice.text}" for notice in found]


def test_nothing_when_all_is_well() -> None:
    assert texts([queue(ready=500, oldest_ready_age=3.0)], [worker(), worker(state="stopped")]) == []


def test_a_backlog_that_nobody_works_on() -> None:
    for workers in ([], [worker(concurrency=0)], [worker(state="draining")], [worker(state="stopped")]):
        found = texts(
            [queue(ready=5, oldest_ready_age=99.0), queue(name="b", ready=2), queue(name="c", ready=3, paused=True)],
            workers,
        )
        assert found == ["bad: 7 jobs are ready and no worker process is alive.", "warn: Queue c is paused. 3 ready."]
    assert texts([queue(ready=1)], []) == ["bad: One job is ready and no worker process is alive."]
    assert texts([queue()], []) == []


def test_a_queue_that_waits_long() -> None:
    assert texts([queue(ready=1, oldest_ready_age=61.0)])[0].startswith("warn: The oldest ready job of mail has waited")


def test_a_paused_queue_is_told_with_its_reason_and_not_for_its_age() -> None:
    assert texts([queue(paused=True, paused_reason="fire", ready=3, oldest_ready_age=999.0)]) == [
        "warn: Queue mail is paused: fire. 3 ready."
    ]


def test_processes_that_are_late_or_lost() -> None:
    late, lost = texts(workers=[worker(), worker(late=True), worker(state="lost")])
    assert late.startswith("bad: Process 7 on h is late")
    assert lost.startswith("warn: A worker process was lost")


def test_dead_letters_and_a_redis_that_is_away() -> None:
    dead, redis = texts(dead=2, broker_up=False)
    assert dead == "bad: 2 jobs became dead letters in the last hour."
    assert redis.startswith("warn: Redis is away")


def test_a_transaction_that_stays_open() -> None:
    (found,) = texts(held=TransactionHeld(pid=123, name="psql", seconds=150.0))
    assert found.startswith("warn: A transaction in Postgres (psql, process 123) has been open for 2")
    assert "pg_terminate_backend(123)" in found


def test_the_list_is_bounded_with_the_worst_first() -> None:
    found = texts([queue(name=f"q{n}", paused=True) for n in range(50)], dead=1)
    assert len(found) == SHOWN
    assert found[0].startswith("bad")
