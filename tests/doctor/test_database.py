"""What is found in a PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from jobflow import migrate
from jobflow.doctor import database
from jobflow.doctor.finding import Finding
from jobflow.embedded import Urls
from jobflow.settings import Settings
from tests.support.servers import admin_url, execute, fresh_database, with_database

GOOD: dict[str, Any] = {
    "number": 150_000,
    "version": "15.0 (Debian)",
    "encoding": "UTF8",
    "standby": False,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "connections": 97,
}


def examine(url: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in asyncio.run(database.check(url, Settings()))}


def test_an_empty_database_waits_for_its_schema(servers: Urls) -> None:
    with fresh_database(servers.database_url) as url:
        found = examine(url)
        assert found["schema"].level == "warn"
        assert "jobflow migrate" in found["schema"].advice
        asyncio.run(migrate.upgrade(url))
        assert examine(url)["schema"].level == "ok"


def test_a_role_without_its_settings(database_url: str) -> None:
    execute(database_url, f"ALTER ROLE CURRENT_USER IN DATABASE {database_url.rpartition('/')[2]} RESET ALL")
    found = examine(database_url)["schema"]
    assert found.level == "warn"
    assert "planner settings" in found.text


def test_a_schema_of_a_newer_version(database_url: str) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    found = examine(database_url)["schema"]
    assert found.level == "fail"
    assert "newer" in found.text


def test_a_role_that_may_create_nothing(servers: Urls) -> None:
    with fresh_database(servers.database_url) as url:
        admin = with_database(admin_url(url), url.rpartition("/")[2])
        execute(admin, f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO postgres")
        found = examine(url)["schema"]
    assert found.level == "fail"
    assert "GRANT CREATE ON SCHEMA public TO jobflow" in found.advice


def test_a_database_in_another_encoding(servers: Urls) -> None:
    admin = admin_url(servers.database_url)
    execute(admin, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    try:
        found = examine(with_database(servers.database_url, "latin"))
    finally:
        execute(admin, "DROP DATABASE latin WITH (FORCE)")
    assert found["postgres"].level == "fail"
    assert "LATIN1" in found["postgres"].text
    assert "schema" not in found


def test_a_database_that_is_not_there(servers: Urls) -> None:
    (found,) = examine(with_database(servers.database_url, "nowhere")).values()
    assert found.level == "fail"
    assert "createdb" in found.advice


def test_a_wrong_password(servers: Urls) -> None:
    (found,) = examine(servers.database_url.replace("jobflow:", "jobflow:x")).values()
    assert (found.level, found.advice) == ("fail", "Mend the user or password in DATABASE_URL.")


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"number": 140_012, "version": "14.12"}, "14.12"),
        ({"standby": True}, "standby"),
        ({"encoding": "SQL_ASCII"}, ""),
    ],
)
def test_servers_that_will_not_do(facts: dict[str, Any], part: str) -> None:
    found = database.server(GOOD | facts, "db:5432/jobflow", 0.001)
    assert found.level == "fail"
    assert part in found.text


def test_a_server_that_will_do() -> None:
    assert database.server(GOOD, "db:5432/jobflow", 0.0012) == (
        "postgres", "ok", "PostgreSQL 15.0 at db:5432/jobflow answers in 1.2 ms", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("live", "pool", "level"), [(0, 20, "ok"), (3, 20, "ok"), (4, 20, "warn"), (5, 20, "fail"), (0, 100, "fail")]
)
def test_connections_must_suffice_for_all_processes(live: int, pool: int, level: str) -> None:
    assert database.connections(GOOD, live, Settings(pool_size=pool)).level == level


@pytest.mark.parametrize(("ahead", "level"), [(0.0, "ok"), (-0.9, "ok"), (1.1, "warn"), (-90.0, "warn")])
def test_clocks_must_agree(ahead: float, level: str) -> None:
    assert database.clock(ahead).level == level


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit", "autovacuum"])
def test_what_is_unsafe_is_named(name: str) -> None:
    assert database.safety(GOOD).level == "ok"
    found = database.safety(GOOD | {name: "off"})
    assert found.level == "warn"
    assert name in found.text


def test_a_server_that_starts_is_away() -> None:
    assert (
        database.away("db:5432/jobflow", asyncpg.CannotConnectNowError("the database system is starting up")).level
        == "fail"
    )
