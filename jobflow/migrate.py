"""Brings the database to this version's schema, once, however many processes start together."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from jobflow.errors import SchemaTooNew
from jobflow.paths import resource
from jobflow.pool import sqlalchemy_url, translated

LOCK = "hashtextextended('jobflow migrations', 0)"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    return config


def head() -> str:
    """The revision this version of Jobflow expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


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
                if await connection.run_sync(_current) == head():
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
    return head()


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
