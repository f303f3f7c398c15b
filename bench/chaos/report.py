"""What a run says while it goes on and in the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from bench.chaos.faults import Faults
from bench.chaos.judge import Verdict
from bench.chaos.load import Load
from bench.chaos.world import World

ENDED = """
SELECT coalesce(sum(CASE WHEN after = ANY ($1) THEN n ELSE 0 END - CASE WHEN before = ANY ($1) THEN n ELSE 0 END), 0)::bigint
FROM (SELECT before, after, n FROM counters UNION ALL SELECT before, after, n FROM counter_deltas) c
"""
FINAL = ["completed", "dead_letter", "cancelled"]


def note(line: str) -> None:
    """A progress line: written over on a terminal, else one after the other."""
    print(f"\r{line}\x1b[K" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def progress(began: float, load: Load, faults: Faults, planned: int, ended: int, world: World) -> str:
    living = sum(app.ready.is_set() for app in world.apps)
    return (
        f"{time.monotonic() - began:6.0f} s  {load.sent:,} jobs sent, {len(load.acknowledged):,} acknowledged, "
        f"{ended:,} ended, {sum(faults.done.values())} of {planned} faults, {living} of {len(world.apps)} processes ready, "
        f"{len(world.surprises)} surprises"
    )


async def count_ended(connection: asyncpg.Connection[Any]) -> int:
    return int(await connection.fetchval(ENDED, FINAL))


def summary(verdict: Verdict, done: Mapping[str, int]) -> str:
    """The last line: jobs, faults by kind, lost, accepted twice, extra executions, slowest recovery."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
    slowest = max((r.seconds for r in verdict.recoveries), default=0.0)
    return (
        f"{verdict.jobs:,} jobs, {sum(done.values())} faults ({kinds}): {verdict.lost} lost, {verdict.twice} accepted twice, "
        f"{verdict.extra:,} extra executions, slowest recovery {slowest:.1f} s of {len(verdict.recoveries):,}"
    )


def details(verdict: Verdict, load: Load, faults: Faults, world: World, seconds: float) -> list[str]:
    """A few lines above the last one."""
    statuses = ", ".join(f"{count:,} {status}" for status, count in verdict.statuses.items())
    ordered = sorted(r.seconds for r in verdict.recoveries)
    queued = sum(r.queued for r in verdict.recoveries)
    middle = (
        f"; recovery p50 {ordered[len(ordered) // 2]:.1f} s, {queued} of {len(ordered)} behind a backlog"
        if ordered
        else ""
    )
    idle = f"; traps nothing stepped into: {dict(faults.idle)}" if faults.idle else ""
    spans = ", ".join(f"{kind} {span:.1f} s" for kind, span in verdict.pauses.items())
    return [
        f"{seconds:,.0f} s; {statuses}; {verdict.given_up} given up after three lost processes; {verdict.revoked:,} runs "
        f"taken from their process",
        f"client: {load.repeats:,} repeats, {load.replays:,} answers replayed, {len(load.unknown):,} jobs sent once without "
        f"an answer; {len(world.deaths)} deaths, starts took up to {max(world.starts):.0f} s, {world.refused_starts} starts refused because a server was away{middle}{idle}",
        f"longest span without a claim around a fault, median by kind: {spans}",
    ]
