"""Brings the database to this version's schema, once, however many processes start together."""

from __future__ import annotations

from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from jobflow.errors import SchemaTooNew
from jobflow.paths import resource
from jobflow.pool import sqlalchemy_url, translated

LOCK = "hashtextextended('jobflow migrations', 0)"

# Of our role in this database only, so that they also hold behind a transaction pooler. The hot statements go by primary
# key by their shape; any other plan is a trap while statistics are stale. Reads with free filters turn the methods on
# again in their own transaction. What is read as JSON tells its times in UTC. No statement may wait for ever.
ROLE = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "timezone": "UTC",
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "30s",
}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    return config


def head() -> str:
    """The revision this version of Jobflow expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


class Schema(NamedTuple):
    """``revision``: None before the first migration. ``settled``: whether our role has the settings of ``ROLE``."""

    revision: str | None
    settled: bool


async def look(database_url: str) -> Schema:
    """What state the schema is in, for whoever only wants to know. Raises SchemaTooNew, StoreUnavailable."""
    engine = create_async_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    try:
        with translated():
            async with engine.connect() as connection:
                return await _look(connection)
    finally:
        await engine.dispose()


async def upgrade(database_url: str) -> str:
    """Migrate to the head, in one transaction on one connection under an advisory lock.

    database_url: ``postgresql://…``; a direct connection, not a pooler's.
    Returns the revision. Raises SchemaTooNew when a newer Jobflow migrated this database, StoreUnavailable.
    """
    engine = create_async_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    try:
        with translated():
            # First without the lock: with many replicas only the first start has anything to do.
            async with engine.connect() as connection:
                if await _look(connection) == Schema(head(), settled=True):
                    return head()
            return await _upgrade(engine)
    finally:
        await engine.dispose()


async def _upgrade(engine: AsyncEngine) -> str:
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        await connection.execute(text("SET LOCAL lock_timeout = '10min'"))
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        await connection.run_sync(_run)
        # Not a migration: a dump does not carry them, and another role may be used some day.
        for name, value in ROLE.items():
            await connection.execute(
                text(f"ALTER ROLE CURRENT_USER IN DATABASE {await _name(connection)} SET {name} = '{value}'")
            )
    return head()


async def _look(connection: AsyncConnection) -> Schema:
    return Schema(await connection.run_sync(_current), await _settled(connection))


async def _settled(connection: AsyncConnection) -> bool:
    """Whether the role's settings hold for this fresh connection."""
    for name, value in ROLE.items():
        if await connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) != value:
            return False
    return True


async def _name(connection: AsyncConnection) -> str:
    name: str = await connection.scalar(text("SELECT quote_ident(current_database())"))
    return name


def _current(connection: Connection) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaTooNew(
            f"The database has schema {current}, which this version of Jobflow ({head()}) does not know: "
            "it was migrated by a newer version. Run that version, or restore a backup from before."
        )
    return current


def _run(connection: Connection) -> None:
    if _current(connection) != head():
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
