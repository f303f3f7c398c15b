"""What really happened to every job, written down by a trigger that only tests install, and the rules it is judged by."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import UUID

from jobflow.lifecycle import FINAL
from jobflow.pool import Connection

INSTALL = (Path(__file__).parents[2] / "bench" / "chaos" / "oracle.sql").read_text("utf-8")

ALL_JOBS = """
SELECT id, status, queue, attempt, max_attempts, rescues FROM jobs
UNION ALL SELECT id, 'completed', queue, attempt, max_attempts, rescues FROM jobs_done
"""

COUNTED = """
SELECT queue, status, sum(n)::bigint AS n
FROM (SELECT queue, after AS status, n FROM counters UNION ALL SELECT queue, before, -n FROM counters
      UNION ALL SELECT queue, after, n FROM counter_deltas UNION ALL SELECT queue, before, -n FROM counter_deltas) c
WHERE status <> '' GROUP BY queue, status HAVING sum(n) <> 0
"""


async def install(database: Connection) -> None:
    await database.execute(INSTALL)


async def statuses(database: Connection) -> dict[UUID, str]:
    return {row["id"]: row["status"] for row in await database.fetch(ALL_JOBS)}


async def unfinished(database: Connection, ids: Collection[UUID]) -> dict[str, str]:
    """Those of ``ids`` that have not ended for good, or are not there at all."""
    found = await statuses(database)
    return {str(id): found.get(id, "gone") for id in ids if found.get(id) not in FINAL}


async def moves(database: Connection, before: str, after: str) -> int:
    return int(await database.fetchval("SELECT count(*) FROM oracle WHERE before = $1 AND after = $2", before, after))


async def check(database: Connection, acknowledged: Collection[UUID]) -> None:
    """Judge a run that has come to rest. Raises AssertionError."""
    assert await unfinished(database, acknowledged) == {}
    async with database.transaction(isolation="repeatable_read", readonly=True):
        counted = {(row["queue"], row["status"]): row["n"] for row in await database.fetch(COUNTED)}
        rows = await database.fetch(ALL_JOBS)
    assert counted == _count(rows)
    assert [row["id"] for row in rows if row["attempt"] > row["max_attempts"] or row["rescues"] > 3] == []
    twice = "SELECT id FROM oracle WHERE before = 'processing' AND after = 'completed' GROUP BY id HAVING count(*) > 1"
    assert await database.fetch(twice) == []
    assert await database.fetch("SELECT id FROM oracle WHERE epoch_after < epoch_before") == []
    # A request to cancel writes to a row that goes on running; every other way into `processing` is a claim.
    claims = "SELECT id FROM oracle WHERE before <> after AND after = 'processing'"
    assert await database.fetch(f"{claims} AND epoch_after <= epoch_before") == []
    # The same token twice would let a late ending pass for another run.
    assert await database.fetch(f"{claims} GROUP BY id, epoch_after HAVING count(*) > 1") == []
    resurrected = "SELECT id FROM oracle WHERE before = 'completed' OR (before IN ('dead_letter', 'cancelled') AND after = 'processing')"
    assert await database.fetch(resurrected) == []


def _count(rows: list[Any]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        place = row["queue"], row["status"]
        counts[place] = counts.get(place, 0) + 1
    return counts
