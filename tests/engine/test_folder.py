"""Deltas become totals and minutes, and nothing is counted twice or lost on the way."""

from __future__ import annotations

import asyncio

from jobflow.engine.folder import ROUND, Folder
from jobflow.lifecycle import complete
from jobflow.pool import Connection
from jobflow.store import Store
from tests.support.parts import Parts


async def test_folding_changes_no_count(parts: Parts, database: Connection) -> None:
    runs = await parts.take(await parts.insert(5))
    await parts.insert(2, queue="other")
    await parts.store.complete_jobs([complete(run, None) for run in runs[:3]])
    before = await parts.store.totals()
    assert before.by_status["completed"] == 3
    assert await Folder(store=parts.store).tick() == ROUND
    assert await database.fetchval("SELECT count(*) FROM counter_deltas") == 0
    assert await parts.store.totals() == before
    await parts.store.complete_jobs([complete(runs[3], None)])
    await Folder(store=parts.store).tick()
    assert (await parts.store.totals()).by_status["completed"] == 4


async def test_minutes_are_the_charts_history(parts: Parts, database: Connection) -> None:
    await parts.insert(4)
    await Folder(store=parts.store).tick()
    await parts.insert(3)
    await Folder(store=parts.store).tick()
    assert await database.fetchval("SELECT sum(n) FROM counter_minutes WHERE before = '' AND after = 'pending'") == 7


async def test_several_at_once_fold_each_delta_once(parts: Parts, database: Connection, store: Store) -> None:
    for _ in range(5):
        await parts.insert(10)
        await asyncio.gather(*(Folder(store=store).tick() for _ in range(4)))
    assert await database.fetchval("SELECT sum(n) FROM counters") == 50
