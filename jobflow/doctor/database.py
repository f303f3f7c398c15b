"""PostgreSQL: is it there, new enough, ours to use, and safe?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from jobflow import migrate
from jobflow.doctor.finding import Finding, fail, ok, warn
from jobflow.errors import JobflowError
from jobflow.settings import Settings

OLDEST = 150_000  # as server_version_num
PATIENCE = 5.0  # seconds
CLOCKS = 1.0  # seconds that two clocks may differ

FACTS = """
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit, current_setting('autovacuum') AS autovacuum,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections,
       has_schema_privilege(current_schema(), 'CREATE') AS may_create, current_user AS role,
       to_regclass('workers') IS NOT NULL AS has_workers, extract(epoch FROM clock_timestamp())::float8 AS clock
"""
LIVE = "SELECT count(*) FROM workers WHERE state IN ('alive', 'draining') AND lease_until > now()"


async def check(url: str, settings: Settings) -> list[Finding]:
    place = urlsplit(url)
    where = f"{place.hostname or 'localhost'}:{place.port or 5432}{place.path}"
    try:
        connection = await asyncpg.connect(url, timeout=PATIENCE, command_timeout=PATIENCE)
        try:
            began, before = time.perf_counter(), time.time()
            facts: Mapping[str, Any] = dict(await connection.fetchrow(FACTS) or {})
            took = time.perf_counter() - began
            live = await connection.fetchval(LIVE) if facts["has_workers"] else 0
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [away(where, error)]
    findings = [server(facts, where, took)]
    if findings[0].level != "fail":
        findings.append(await schema(url, facts))
    return [*findings, clock(facts["clock"] - before - took / 2), connections(facts, live, settings), safety(facts)]


def away(where: str, error: Exception) -> Finding:
    said = str(error) or type(error).__name__
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return fail("postgres", f"{where} refuses us: {said}", "Mend the user or password in DATABASE_URL.")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return fail("postgres", f"{where}: {said}", "Create it: createdb --encoding=UTF8 --template=template0 NAME.")
    return fail("postgres", f"{where} does not answer: {said}", "Start PostgreSQL, or mend DATABASE_URL.")


def server(facts: Mapping[str, Any], where: str, took: float) -> Finding:
    name = f"PostgreSQL {facts['version'].split()[0]} at {where}"
    if facts["number"] < OLDEST:
        return fail("postgres", name, "Jobflow needs PostgreSQL 15 or newer.")
    if facts["encoding"] != "UTF8":
        advice = "Jobflow needs a database in UTF8: createdb --encoding=UTF8 --template=template0 NAME."
        return fail("postgres", f"{name} is in {facts['encoding']}", advice)
    if facts["standby"]:
        return fail("postgres", f"{name} is a standby, which cannot be written", "Name the primary in DATABASE_URL.")
    return ok("postgres", f"{name} answers in {took * 1000:.1f} ms")


async def schema(url: str, facts: Mapping[str, Any]) -> Finding:
    role = facts["role"]
    if not facts["may_create"]:
        advice = f"As a superuser: GRANT CREATE ON SCHEMA public TO {role}; or make {role} the database's owner."
        return fail("schema", f"the role {role} may not create tables, which each new day needs", advice)
    try:
        revision, settled = await migrate.look(url)
    except JobflowError as error:
        return fail("schema", str(error), "Run the version of Jobflow that fits the database.")
    if revision != migrate.head():
        state = f"is at {revision}, this version needs {migrate.head()}" if revision else "is not there yet"
        return warn("schema", f"the schema {state}", "The next start brings it up to date; so does `jobflow migrate`.")
    if not settled:
        advice = "The next start, or `jobflow migrate`, sets them; behind a pooler, let it open new connections then."
        return warn(
            "schema", f"{revision}, but the role {role} lacks the planner settings that Jobflow relies on", advice
        )
    return ok("schema", f"{revision}, up to date; the role {role} has its settings")


def clock(ahead: float) -> Finding:
    """``ahead``: seconds by which Postgres' clock is ahead of ours."""
    said = f"Postgres and this machine differ by {abs(ahead):.3f} s"
    if abs(ahead) > CLOCKS:
        return warn("clock", said, "Jobs start by Postgres' clock. Let both keep time by NTP.")
    return ok("clock", said)


def connections(facts: Mapping[str, Any], live: int, settings: Settings) -> Finding:
    each, there = settings.pool_size + 1, facts["connections"]  # one more is the heartbeat's
    processes = max(live, 1)
    said = f"{processes * each} of {there} may be taken: {processes} times JOBFLOW_POOL_SIZE and one"
    advice = "Raise max_connections of PostgreSQL, or lower JOBFLOW_POOL_SIZE."
    if processes * each > there:
        return fail("connections", said, advice)
    if (processes + 1) * each > there:
        return warn("connections", f"{said}; there is no room for another process", advice)
    return ok("connections", said)


def safety(facts: Mapping[str, Any]) -> Finding:
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum") if facts[name] == "off"]
    if not off:
        return ok("durability", "what was committed survives a crash")
    advice = "Turn it on." if off == ["autovacuum"] else "Turn it on, unless losing jobs in a crash is fine."
    return warn("durability", f"off: {', '.join(off)}", advice)
