"""How long the jobs of a process that died waited for another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from bench.chaos.world import Death

# Every claim by one of the processes that died, and what became of the job next and after that.
CLAIMS = """
WITH moves AS (
  SELECT id, before, after, epoch_before, epoch_after, locked_by, extract(epoch FROM at)::float8 AS at,
         lead(after) OVER job AS next, lead(epoch_after - epoch_before) OVER job AS rise,
         extract(epoch FROM lead(at) OVER job)::float8 AS ended_at,
         lead(after, 2) OVER job AS second, extract(epoch FROM lead(at, 2) OVER job)::float8 AS second_at
  FROM oracle WHERE id IN (SELECT id FROM oracle WHERE after = 'processing' AND locked_by = ANY ($1::uuid[]))
  WINDOW job AS (PARTITION BY id ORDER BY n)
)
SELECT id, locked_by, at, next, rise, ended_at, second, second_at FROM moves
WHERE after = 'processing' AND locked_by = ANY ($1::uuid[])
"""


class Recovery(NamedTuple):
    """seconds: from the death to the next claim. raw: with the time in which nobody could judge."""

    seconds: float
    raw: float
    id: UUID
    pid: int


def measure(
    deaths: Sequence[Death],
    workers: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    uncounted: Sequence[tuple[float, float]] = (),
) -> list[Recovery]:
    """First rescues only: a job that loses its process again waits on purpose.

    workers: id, pid and started_at (seconds since 1970) of every identity. claims: rows of CLAIMS. uncounted: spans in
    which nobody could judge others, taken off.
    """
    born = {row["id"]: row for row in workers}
    found = []
    for claim in claims:
        worker = born.get(claim["locked_by"])
        if worker is None or claim["second"] != "processing":
            continue
        # Its process died while it ran: the last move before is the claim, the next one after it revokes that.
        death = next(
            (d for d in sorted(deaths, key=lambda d: d.at) if d.pid == worker["pid"] and d.at > worker["started_at"]),
            None,
        )
        if death is None or not claim["at"] <= death.at <= claim["ended_at"]:
            continue
        if claim["next"] != "pending" or claim["rise"] != 1:
            continue  # handed back by itself, or rescued before
        raw = claim["second_at"] - death.at
        found.append(Recovery(raw - overlap(death.at, claim["second_at"], uncounted), raw, claim["id"], death.pid))
    return found


def overlap(since: float, until: float, spans: Sequence[tuple[float, float]]) -> float:
    """Seconds from ``since`` to ``until`` that lie in one of the spans; where two of those overlap they count once."""
    total, covered = 0.0, since
    for began, ended in sorted(spans):
        first, last = max(began, covered), min(ended, until)
        if last > first:
            total += last - first
            covered = last
    return total
