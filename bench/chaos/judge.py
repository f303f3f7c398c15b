"""The verdict: SQL over the tables, the client's own record, and the files that handlers wrote. Jobflow is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from bench.chaos.pauses import CLAIM_TIMES, Blow, pauses
from bench.chaos.recovery import CLAIMS, Recovery, measure
from bench.chaos.world import Death

SHOWN = 20  # rows of each kind of mistake that are written down

PREPARE = """
CREATE TEMP TABLE acknowledged (n bigint PRIMARY KEY, id uuid NOT NULL);
CREATE TEMP TABLE effects (id uuid PRIMARY KEY, times int NOT NULL);
CREATE TEMP VIEW all_jobs AS
  SELECT id, status, attempt, max_attempts, rescues, error_type, (payload->>'n')::bigint AS n FROM jobs
  UNION ALL
  SELECT id, 'completed', attempt, max_attempts, rescues, error_type, (payload->>'n')::bigint FROM jobs_done;
-- Endings by the run's own process; whoever else ends a run raises its epoch.
CREATE TEMP VIEW own_endings AS
  SELECT id, count(*) AS times FROM oracle
  WHERE before = 'processing' AND after IN ('completed', 'failed', 'dead_letter', 'cancelled', 'scheduled')
    AND epoch_after = epoch_before
  GROUP BY id;
"""

# Mistakes of each sort, with the query that shows the rows they happened to.
LOST = {
    "acknowledged, and not there": "SELECT n, id FROM acknowledged a WHERE NOT EXISTS (SELECT FROM all_jobs j WHERE j.id = a.id)",
    "acknowledged, and under another number": """
        SELECT a.n, j.n AS found, j.id FROM acknowledged a JOIN all_jobs j ON j.id = a.id WHERE a.n IS DISTINCT FROM j.n""",
    "not final": "SELECT * FROM all_jobs WHERE status NOT IN ('completed', 'dead_letter', 'cancelled')",
    "completed, and no handler has run": """
        SELECT * FROM all_jobs j WHERE status = 'completed' AND NOT EXISTS (SELECT FROM effects e WHERE e.id = j.id)""",
}
TWICE = {
    "ended for good twice": """
        SELECT id, array_agg(after ORDER BY n) AS endings FROM oracle
        WHERE after IN ('completed', 'dead_letter', 'cancelled') AND before <> after GROUP BY id HAVING count(*) > 1""",
    "there twice": "SELECT id, count(*) FROM all_jobs GROUP BY id HAVING count(*) > 1",
    "two jobs for one request": """
        SELECT n, array_agg(id) AS ids FROM all_jobs WHERE n IS NOT NULL GROUP BY n HAVING count(*) > 1""",
    "one fencing token, two runs": """
        SELECT id, epoch_after, count(*) FROM oracle WHERE after = 'processing' AND before <> after
        GROUP BY id, epoch_after HAVING count(*) > 1""",
    "moved after its end": """
        SELECT id, before, after FROM oracle
        WHERE before IN ('completed', 'dead_letter', 'cancelled') AND after IS DISTINCT FROM before""",
}
WRONG = {
    "a token that fell": "SELECT id, epoch_before, epoch_after FROM oracle WHERE epoch_after < epoch_before",
    "more attempts or rescues than allowed": "SELECT * FROM all_jobs WHERE attempt > max_attempts OR rescues > 3",
    "counters that differ from the rows": """
        WITH counted AS (
          SELECT status, sum(n)::bigint AS n
          FROM (SELECT after AS status, n FROM counters UNION ALL SELECT before, -n FROM counters
                UNION ALL SELECT after, n FROM counter_deltas UNION ALL SELECT before, -n FROM counter_deltas) c
          WHERE status <> '' GROUP BY status HAVING sum(n) <> 0
        ), real AS (SELECT status, count(*) AS n FROM all_jobs GROUP BY status)
        SELECT status, counted.n AS counted, real.n AS there FROM counted FULL JOIN real USING (status)
        WHERE counted.n IS DISTINCT FROM real.n""",
}
EXTRA = """
SELECT coalesce(sum(greatest(e.times - coalesce(o.times, 0), 0)), 0)::bigint
FROM effects e LEFT JOIN own_endings o USING (id)
"""
REVOKED = "SELECT count(*) FROM oracle WHERE before = 'processing' AND epoch_after = epoch_before + 1"
GIVEN_UP = "SELECT count(*) FROM all_jobs WHERE error_type = 'WorkerLost' AND status = 'dead_letter'"
WORKERS = """
SELECT id, pid, extract(epoch FROM started_at)::float8 AS started_at FROM workers WHERE pid = ANY ($1::int[])
"""
HISTORY = "SELECT * FROM oracle WHERE id = ANY ($1::uuid[]) ORDER BY n"


class Verdict(NamedTuple):
    """mistakes: sentence → number of rows. story: everything known about the rows that are wrong, for a file."""

    jobs: int
    lost: int
    twice: int
    extra: int
    statuses: dict[str, int]
    given_up: int
    revoked: int
    recoveries: list[Recovery]
    pauses: dict[str, float]
    mistakes: dict[str, int]
    story: list[str]


async def judge(
    connection: asyncpg.Connection[Any],
    acknowledged: Mapping[int, str],
    *,
    effects: Path,
    deaths: Sequence[Death] = (),
    uncounted: Sequence[tuple[float, float]] = (),
    blows: Sequence[Blow] = (),
) -> Verdict:
    """Judge a run that has come to rest.

    acknowledged: number of a job → its id, as the client was told. effects: folder of the files that handlers wrote.
    deaths: of processes. uncounted: spans in which no process could judge others. blows: the
    faults that took place.
    """
    await connection.execute(PREPARE)
    told = [(n, UUID(id)) for n, id in acknowledged.items()]
    await connection.copy_records_to_table("acknowledged", records=told, columns=["n", "id"])
    left = list(executions(effects).items())
    await connection.copy_records_to_table("effects", records=left, columns=["id", "times"])
    await connection.execute("ANALYZE acknowledged; ANALYZE effects; ANALYZE oracle")
    mistakes: dict[str, int] = {}
    story: list[str] = []
    lost = await _count(connection, LOST, mistakes, story)
    twice = await _count(connection, TWICE, mistakes, story)
    await _count(connection, WRONG, mistakes, story)
    rows = await connection.fetch("SELECT status, count(*) AS n FROM all_jobs GROUP BY status ORDER BY status")
    workers = await connection.fetch(WORKERS, [death.pid for death in deaths])
    claims = await connection.fetch(CLAIMS, [row["id"] for row in workers])
    return Verdict(
        jobs=len(acknowledged),
        lost=lost,
        twice=twice,
        extra=await connection.fetchval(EXTRA),
        statuses={row["status"]: row["n"] for row in rows},
        given_up=await connection.fetchval(GIVEN_UP),
        revoked=await connection.fetchval(REVOKED),
        pauses=pauses(blows, [row["at"] for row in await connection.fetch(CLAIM_TIMES)]),
        recoveries=measure(deaths, workers, claims, uncounted),
        mistakes=mistakes,
        story=story,
    )


def executions(folder: Path) -> Counter[UUID]:
    """How often the handler of each job began, as the files say."""
    return Counter(UUID(line.partition(" ")[0]) for line in lines(folder.glob("*.effects")))


def lines(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        yield from file.read_text().splitlines()


async def _count(
    connection: asyncpg.Connection[Any], queries: Mapping[str, str], mistakes: dict[str, int], story: list[str]
) -> int:
    total = 0
    for sentence, query in queries.items():
        rows = await connection.fetch(query)
        if not rows:
            continue
        total += len(rows)
        mistakes[sentence] = len(rows)
        story += [f"== {sentence}: {len(rows)}", *(repr(dict(row)) for row in rows[:SHOWN])]
        ids = [row["id"] for row in rows[:SHOWN] if "id" in row]
        story += [repr(dict(row)) for row in await connection.fetch(HISTORY, ids)]
    return total
