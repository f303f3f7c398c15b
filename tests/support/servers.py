"""Private servers of one test run, and fresh databases on them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from jobflow.embedded import EmbeddedError, Servers, Urls

# Which programs the tests use; taken out of the environment because `load` refuses JOBFLOW_ names it does not know.
POSTGRES = os.environ.pop("JOBFLOW_TEST_POSTGRES", "")  # folder of `postgres` and `initdb`; empty: as `jobflow dev`
REDIS = os.environ.pop("JOBFLOW_TEST_REDIS", "")  # path of the Redis server

numbers = itertools.count(1)


def home() -> Path:
    """Where test runs keep their servers' data: in memory where there is enough, which copies a database 8 times faster."""
    memory = Path("/dev/shm")
    enough = "TMPDIR" not in os.environ and memory.is_dir() and shutil.disk_usage(memory).free > 4_000_000_000
    folder = (memory if enough else Path(tempfile.gettempdir())) / f"jobflow-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def programs() -> dict[str, Path | None]:
    """The programs to use, as arguments for ``Servers``."""
    return {"postgres": Path(POSTGRES) if POSTGRES else None, "redis": Path(REDIS) if REDIS else None}


@contextmanager
def private_servers() -> Iterator[Urls]:
    """Servers in a temporary folder: other runs at the same time have their own."""
    folder = home()
    sweep(folder)
    data = Path(tempfile.mkdtemp(dir=folder))
    servers = Servers(data, durable=False, **programs())
    try:
        yield servers.start()
    finally:
        servers.stop()
        shutil.rmtree(data, ignore_errors=True)


def sweep(folder: Path) -> None:
    """End the servers of test runs that were killed; those that live hold the lock of their folder."""
    for data in folder.iterdir():
        with suppress(EmbeddedError, OSError):
            begins = time.time() - data.stat().st_mtime < 60  # and may not have its lock yet
            if (data / "jobflow.lock").exists() and not begins:
                Servers(data, **programs()).clear()
                shutil.rmtree(data, ignore_errors=True)


def admin_url(database_url: str) -> str:
    """The superuser's way into the server of ``database_url``, for what the role `jobflow` may not do."""
    parts = urlsplit(database_url)
    return f"postgresql://postgres:{parts.password}@{parts.hostname}:{parts.port}/postgres"


def with_database(url: str, name: str) -> str:
    """The same server, another database (a name, or a number for Redis)."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own. For places without a running event loop."""

    async def go() -> None:
        connection = await asyncpg.connect(url, ssl=False)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(go())


def fetch(url: str, query: str) -> Any:
    """The first value that a query gives. For places without a running event loop."""

    async def go() -> Any:
        connection = await asyncpg.connect(url, ssl=False)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(go())


async def ask(url: str, query: str) -> list[Any]:
    """The first value of each row, over a connection of its own."""
    connection = await asyncpg.connect(url, ssl=False)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


@contextmanager
def fresh_database(server: str, template: str = "template1") -> Iterator[str]:
    """A database of its own, copied from ``template``; the url of it.

    server: url of any database on that server, with the role that shall own the new one.
    """
    name = f"test_{next(numbers)}"
    owner = urlsplit(server).username
    execute(admin_url(server), f"CREATE DATABASE {name} TEMPLATE {template} OWNER {owner} STRATEGY FILE_COPY")
    try:
        yield with_database(server, name)
    finally:
        execute(admin_url(server), f"DROP DATABASE {name} WITH (FORCE)")
