"""A day of somebody's jobs, written straight into a database: every state, long and short texts, an hour for the charts."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from jobflow.pool import Connection
from tests.support.rows import add_job, ago

PEOPLE = ("ada", "grace", "edsger", "barbara", "donald", "radia", "tony", "frances")
TYPES = ("email.send", "report.generate", "image.resize", "billing.charge", "search.reindex", "webhook.deliver")
QUEUES = {"email.send": "mail", "report.generate": "reports", "image.resize": "media", "billing.charge": "billing"}
ERRORS = (
    ("TimeoutError", "the run took longer than its timeout of 30 s"),
    ("ConnectionRefusedError", "[Errno 111] Connect call failed ('10.0.3.17', 5432)"),
    ("HTTPStatusError", "Server error '502 Bad Gateway' for url 'https://api.example.com/v1/charges'"),
    ("ValidationError", "Object missing required field `amount` - at `$.items[3]`"),
)
TRACEBACK = """Traceback (most recent call last):
  File "/app/jobs/billing.py", line 48, in charge
    answer = await client.post("/v1/charges", json=charge)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/local/lib/python3.13/site-packages/httpx/_client.py", line 1859, in post
    return await self.request("POST", url, content=content, data=data, files=files, json=json)
  File "/app/jobs/billing.py", line 61, in raise_for_status
    raise HTTPStatusError(message, request=request, response=self)
httpx.HTTPStatusError: Server error '502 Bad Gateway' for url 'https://api.example.com/v1/charges'
"""


async def fill(database_url: str, *, workers: bool = True, extremes: bool = True) -> dict[str, str]:
    """Write it all, or (``workers`` False) take the worker processes away again. Returns the id of a job in each state.

    extremes: with one job of each state made to be looked at, and one whose names are too long for any page.
    """
    connection = await asyncpg.connect(database_url, ssl=False)
    try:
        if not workers:
            await connection.execute("UPDATE workers SET state = 'stopped' WHERE concurrency > 0")
            return {}
        random.seed(7)
        processes = await _processes(connection)
        await _jobs(connection, processes)
        await _minutes(connection)
        return await _examples(connection, processes[0]) if extremes else {}
    finally:
        await connection.close()


async def _processes(connection: Connection) -> Sequence[UUID]:
    ids = []
    rows = (
        ("worker-7d9f6c-x2x8k", "alive", 50),
        ("worker-7d9f6c-pq4zn", "draining", 50),
        ("worker-7d9f6c-9kkqt", "lost", 50),
    )
    for number, (host, state, concurrency) in enumerate(rows):
        ids.append(uuid7())
        await connection.execute(
            "INSERT INTO workers (id, host, pid, version, state, concurrency, running, types, started_at, beat_at, lease_until) "
            "VALUES ($1, $2, $3, '0.9.0', $4, $5, $6, $7, $8, now(), now() + interval '1 hour')",
            *(
                ids[-1],
                host,
                17 + number,
                state,
                concurrency,
                12 if state == "alive" else 0,
                list(TYPES) * (1 + number),
            ),
            ago(86_400 * 3 - number * 4_000),
        )
    return ids


async def _jobs(connection: Connection, processes: Sequence[UUID]) -> None:
    for number in range(160):
        type = TYPES[number % 6 if number % 7 else 0]
        status = random.choices(
            ("completed", "processing", "pending", "scheduled", "failed", "dead_letter", "cancelled"),
            (60, 8, 9, 8, 7, 5, 3),
        )[0]
        age = number * 11.0 + random.random()
        more: dict[str, Any] = {"created_at": ago(age), "queue": QUEUES.get(type, "default"), "type": type}
        more["payload"] = json.dumps(
            {"to": f"{random.choice(PEOPLE)}@example.com", "subject": f"Invoice {1000 + number}"}
        )
        more["tags"] = [["invoice"], [], ["eu", "vip"], []][number % 4]
        if status in ("processing", "completed"):
            more |= {"locked_by": processes[0], "started_at": ago(age - 0.2)}
        if status == "completed":
            more["finished_at"] = ago(age - 0.2 - random.random() ** 3 * min(age, 9))
        elif status == "scheduled":
            more["run_at"] = ago(-600.0 * number)
        elif status in ("failed", "dead_letter"):
            name, message = random.choice(ERRORS)
            more |= {"error_type": name, "error_message": message, "attempt": 5 if status == "dead_letter" else 2}
            more["run_at"] = ago(-30.0 * number if status == "failed" else age)
        elif status == "cancelled":
            more["cancel_reason"] = "cancelled by a person"
        await add_job(connection, status, **more)
    await connection.execute(
        "UPDATE queues SET paused_at = now(), paused_reason = 'the printer is on fire' WHERE name = 'reports'"
    )
    await connection.execute(
        "INSERT INTO counters VALUES ('mail', '', 'completed', 0, 1284503), ('media', '', 'completed', 0, 88412)"
    )


async def _minutes(connection: Connection) -> None:
    """Two hours of what moved."""
    for minute in range(60):
        wave = 1.2 + math.sin(minute / 7) + random.random() / 3
        for before, after, n in (
            ("", "pending", int(420 * wave)), ("processing", "completed", int(400 * wave)),
            ("processing", "failed", int(9 * wave**2)), ("processing", "dead_letter", minute % 9 == 4),
        ):  # fmt: skip
            await connection.execute(
                "INSERT INTO counter_minutes VALUES (date_trunc('minute', now()) - make_interval(mins => $1), $2, $3, $4, $5) "
                "ON CONFLICT DO NOTHING",
                *(minute, random.choice(("mail", "mail", "media", "default")), before, after, int(n)),
            )


async def _examples(connection: Connection, worker: UUID) -> dict[str, str]:
    """A job in each state, the newest of all, and one of extremes."""
    base: dict[str, Any] = {
        "queue": "billing", "type": "billing.charge", "tags": ["eu", "vip"],
        "payload": '{"customer": 90071992547409, "items": [{"sku": "A-17", "amount": 1299}], "currency": "EUR"}',
    }  # fmt: skip
    failed = {"error_type": ERRORS[2][0], "error_message": ERRORS[2][1], "started_at": ago(42), "locked_by": worker}
    made = {
        "pending": await add_job(connection, "pending", **base),
        "scheduled": await add_job(connection, "scheduled", **base, run_at=ago(-5_400), unique_key="invoice-2030-01"),
        "processing": await add_job(connection, "processing", **base, locked_by=worker, started_at=ago(75), attempt=2),
        "stopping": await add_job(
            connection, "processing", **base, locked_by=worker, started_at=ago(312), cancel_requested_at=ago(4)
        ),
        "failed": await add_job(connection, "failed", **base, **failed, run_at=ago(-95), attempt=3),
        "completed": await add_job(
            connection, "completed", **base, locked_by=worker, started_at=ago(1.9), result='{"charge": "ch_3Pf", "paid": true}'
        ),
        "dead_letter": await add_job(connection, "dead_letter", **base, **failed, attempt=5),
        "cancelled": await add_job(connection, "cancelled", **base, cancel_reason="cancelled by a person"),
        "extreme": await add_job(
            connection, "dead_letter", queue="a-queue-with-the-longest-name-that-anybody-would-ever-give-it-0123",
            type="com.example.service.subsystem.module.ClassWithAVeryLongName.method_that_does_it_all", attempt=20, max_attempts=20,
            tags=["a-rather-long-tag-0123456789"] * 5, error_type="com.example.VeryLongExceptionNameThatGoesOn",
            error_message="Something that nobody had expected happened while the line was written. " * 12, unique_key="k" * 120,
            payload=json.dumps({"rows": [{"id": n, "name": f"row {n}", "text": "word " * 9} for n in range(300)]}), started_at=ago(9),
        ),
    }  # fmt: skip
    for name, runs in (("failed", 3), ("dead_letter", 5), ("extreme", 19)):
        for run in range(1, runs + 1):
            last = run == runs and name != "failed"
            await connection.execute(
                "INSERT INTO job_attempts (job_id, run_epoch, attempt, worker, started_at, finished_at, outcome, error_type, "
                "error_message, traceback) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *(
                    made[name],
                    run,
                    run,
                    worker,
                    ago(2.0 ** (runs - run) * 20 % 90_000 + 3),
                    ago(2.0 ** (runs - run) * 20 % 90_000),
                ),
                *(
                    "exhausted" if last else "lost" if run == 2 else "errored",
                    *ERRORS[2],
                    TRACEBACK * (3 if name == "extreme" else 1),
                ),
            )
    return {name: str(id) for name, id in made.items()}
