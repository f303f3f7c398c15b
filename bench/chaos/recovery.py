"""How long the jobs of a process that died waited for another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from bench.chaos.world import CONCURRENCY, Death

BACKLOG = CONCURRENCY  # jobs that wait, more than which nobody has a slot free at once

# Every claim by one of the processes that died, and what became of the job next and after that. waiting: how many jobs
# could have been claimed when it could be again.
CLAIMS = """
WITH moves AS (
  SELECT n, id, before, after, epoch_after - epoch_before AS rise, locked_by, extract(epoch FROM at)::float8 AS at,
         sum((after IN ('pending', 'scheduled', 'failed'))::int
             - coalesce(before IN ('pending', 'scheduled', 'failed'), false)::int) OVER (ORDER BY n) AS waiting
  FROM oracle
), stories AS (
  SELECT id, after, locked_by, at, lead(after) OVER job AS next, lead(rise) OVER job AS rise,
         lead(at) OVER job AS ended_at, lead(waiting) OVER job AS waiting,
         lead(after, 2) OVER job AS second, lead(at, 2) OVER job AS second_at
  FROM moves WHERE id IN (SELECT id FROM oracle WHERE after = 'processing' AND locked_by = ANY ($1::uuid[]))
  WINDOW job AS (PARTITION BY id ORDER BY n)
)
SELECT id, locked_by, at, next, rise, ended_at, waiting, second, second_at FROM stories
WHERE after = 'processing' AND locked_by = ANY ($1::uuid[])
"""


class Recovery(NamedTuple):
    """seconds: from the death to the next claim, or until it could be claimed again, if so many jobs waited that it was
    ``queued`` behind them. raw: to the next claim in any case, with the time in which nobody could judge.
    """

    seconds: float
    raw: float
    queued: bool
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
        queued = claim["waiting"] > BACKLOG
        end = claim["ended_at"] if queued else claim["second_at"]
        seconds = end - death.at - overlap(death.at, end, uncounted)
        found.append(Recovery(seconds, claim["second_at"] - death.at, queued, claim["id"], death.pid))
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
