from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from jobflow import migrate, tables
from jobflow.errors import SchemaTooNew, StoreUnavailable
from jobflow.migrate import ROLE, head, upgrade
from jobflow.paths import resource
from jobflow.pool import Connection, sqlalchemy_url
from tests.support.commands import free_port
from tests.support.servers import admin_url, ask

OURS = set(tables.metadata.tables)
ROOT = Path(__file__).parent.parent


async def settings_of(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        return {name: await connection.fetchval("SELECT current_setting($1)", name) for name in ROLE}
    finally:
        await connection.close()


TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
REVISION = "SELECT version_num FROM alembic_version"


async def test_an_empty_database_comes_to_the_head_and_stays_there(empty_url: str) -> None:
    assert head() == await upgrade(empty_url)
    found = set(await ask(empty_url, TABLES))
    assert found == OURS | {"alembic_version", "jobs_done_default", "job_attempts_default"}
    assert [head()] == await ask(empty_url, REVISION)
    assert await settings_of(empty_url) == ROLE
    await ask(empty_url, "INSERT INTO queues (name) VALUES ('kept') RETURNING 1")
    oids = "SELECT oid::int FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    before = await ask(empty_url, oids)
    assert head() == await upgrade(empty_url)
    assert (before, ["kept"]) == (await ask(empty_url, oids), await ask(empty_url, "SELECT name FROM queues"))


async def test_five_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    started = asyncio.gather(*(upgrade(empty_url) for _ in range(5)))
    assert await asyncio.wait_for(started, 180) == [head()] * 5
    assert [head()] == await ask(empty_url, REVISION)
    assert await settings_of(empty_url) == ROLE


async def test_indexes_that_were_built_beforehand_are_taken_over(empty_url: str) -> None:
    """As docs/operating.md says, so that nobody waits on a big table."""

    def first(connection: Any) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    engine = create_async_engine(sqlalchemy_url(empty_url))
    async with engine.begin() as connection:
        await connection.run_sync(first)
    await engine.dispose()
    for statement in re.findall(
        r"CREATE INDEX CONCURRENTLY.*?(?=;|', inhrelid)", (ROOT / "docs" / "operating.md").read_text()
    ):
        await ask(empty_url, statement.replace("%s", "jobs_done_default").replace("\n", " "))
    indexes = "SELECT indexrelid::int FROM pg_index WHERE indrelid IN ('jobs'::regclass, 'jobs_done_default'::regclass) ORDER BY 1"
    before = set(await ask(empty_url, indexes))
    assert await upgrade(empty_url) == head()
    after = set(await ask(empty_url, indexes))
    assert (len(before - after), after - before) == (2, set())  # jobs_listed and that of types are gone, none is new


async def test_a_look_changes_nothing(empty_url: str, database_url: str) -> None:
    assert await migrate.look(empty_url) == (None, False)
    assert await ask(empty_url, TABLES) == []
    assert (head(), True) == await migrate.look(database_url)


async def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    await ask(empty_url, "CREATE TABLE counter_minutes ()")
    with pytest.raises(Exception, match="counter_minutes"):
        await upgrade(empty_url)
    assert await ask(empty_url, TABLES) == ["counter_minutes"]


async def test_a_database_of_a_newer_version_is_refused_with_a_sentence(database_url: str) -> None:
    await ask(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew) as caught:
        await upgrade(database_url)
    sentence = str(caught.value)
    assert all(part in sentence for part in ("9999", head(), "newer version"))
    assert await ask(database_url, REVISION) == ["9999"]


async def test_settings_of_the_role_that_are_missing_or_wrong_are_set_again(database_url: str) -> None:
    async def as_admin(statement: str) -> None:
        connection = await asyncpg.connect(admin_url(database_url), ssl=False)
        await connection.execute(statement)
        await connection.close()

    name = database_url.rpartition("/")[2]
    for change in ("RESET ALL", "SET enable_seqscan = on", "RESET statement_timeout"):
        await as_admin(f"ALTER ROLE jobflow IN DATABASE {name} {change}")
        assert await settings_of(database_url) != ROLE
        await upgrade(database_url)
        assert await settings_of(database_url) == ROLE


async def test_the_settings_are_those_of_this_database_only(database_url: str, empty_url: str) -> None:
    assert await settings_of(database_url) == ROLE
    assert (await settings_of(empty_url))["enable_seqscan"] == "on"


async def test_when_nothing_is_to_be_done_nobody_waits_for_the_lock(database_url: str, database: Connection) -> None:
    async with database.transaction():
        await database.execute(f"SELECT pg_advisory_xact_lock({migrate.LOCK})")
        assert head() == await asyncio.wait_for(upgrade(database_url), 60)


async def test_without_a_server_it_says_so() -> None:
    with pytest.raises(StoreUnavailable):
        await upgrade(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")


async def test_the_schema_at_the_head_is_that_of_the_tables_both_ways(database_url: str) -> None:
    def describe(connection: Any) -> dict[str, Any]:
        inspector = inspect(connection)
        return {
            name: (
                {c["name"]: (word(c["type"]), c["nullable"]) for c in inspector.get_columns(name)},
                inspector.get_pk_constraint(name)["constrained_columns"],
            )
            for name in inspector.get_table_names()
            if name in OURS
        }

    def word(kind: Any) -> str:
        return str(kind.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]

    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.connect() as connection:
        found = await connection.run_sync(describe)
        others = set(await connection.run_sync(lambda c: inspect(c).get_table_names())) - OURS
        partitions = (
            (await connection.execute(text("SELECT inhrelid::regclass::text FROM pg_inherits"))).scalars().all()
        )
    await engine.dispose()
    written = {
        name: ({c.name: (word(c.type), c.nullable) for c in table.columns}, [c.name for c in table.primary_key.columns])
        for name, table in tables.metadata.tables.items()
    }
    assert {"alembic_version"} == others - set(partitions)
    assert set(written) == set(found)
    for name, (columns, key) in written.items():
        assert (columns, key) == found[name], name
        assert list(columns) == list(found[name][0]), f"{name}: the order"


def test_what_travels_inside_the_wheel_is_found_beside_the_package() -> None:
    for name in ("migrations", "templates", "static"):
        assert resource(name).is_dir()
    assert (resource("migrations") / "env.py").is_file()
