"""A connection to a measured database that stays open: making one costs more than most statements."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from bench.figures import Figures
from bench.machine import ONLOOKER

_MOVES = "(SELECT after, before, n FROM counters UNION ALL SELECT after, before, n FROM counter_deltas) moves"
COMPLETED = f"SELECT coalesce(sum(n), 0)::bigint FROM {_MOVES} WHERE after = 'completed'"
ACCEPTED = f"SELECT coalesce(sum(n), 0)::bigint FROM {_MOVES} WHERE before = ''"
ENDED = """
SELECT count(*)::float8 AS count, extract(epoch FROM min(finished_at))::float8 AS first,
       extract(epoch FROM max(finished_at))::float8 AS last
FROM (SELECT finished_at FROM jobs_done WHERE id >= $1 AND finished_at >= $2 ORDER BY finished_at LIMIT $3) done
"""
SIZES = """
SELECT sum(pg_table_size(relid))::float8 AS table, sum(pg_indexes_size(relid))::float8 AS index
FROM pg_partition_tree('jobs_done') WHERE isleaf
"""
LEAST_ID = UUID(int=0)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Database:
    """Not for use inside a running event loop."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection[Any] = self._runner.run(
            asyncpg.connect(url, ssl=False, server_settings=ONLOOKER)
        )

    def fetch(self, statement: str, *args: object) -> Any:
        """The first value."""
        return self._runner.run(self._connection.fetchval(statement, *args))

    def row(self, statement: str, *args: object) -> dict[str, Any]:
        return dict(self._runner.run(self._connection.fetchrow(statement, *args)) or {})

    def json(self, statement: str) -> Any:
        """The first value, decoded; an empty dictionary for NULL."""
        return json.loads(self.fetch(statement) or "{}")

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self._runner.run(self._connection.execute(statement))

    def completed(self) -> int:
        """Jobs completed so far, from the counters: the table may be huge."""
        count: int = self.fetch(COMPLETED)
        return count

    def accepted(self) -> int:
        """Jobs stored so far, from the counters."""
        count: int = self.fetch(ACCEPTED)
        return count

    def ended(self, jobs: int, *, first: UUID = LEAST_ID, since: datetime = BEGINNING) -> Figures:
        """When the first and the last of the first ``jobs`` endings were, in seconds since 1970.

        first: only ids from this one on, so that a huge table need not be read. Raises SystemExit: there are fewer.
        """
        row: Figures = self.row(ENDED, first, since, jobs)
        if row.pop("count") != jobs:
            raise SystemExit(f"Not all of {jobs} jobs were completed.")
        return row

    def wal(self) -> int:
        """Bytes of log that the whole server has written so far."""
        written: int = self.fetch("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return written

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()
