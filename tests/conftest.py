"""Fixtures of all tests: private servers for each run, a fresh database and an empty Redis for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import hypothesis
import pytest
import redis
from litestar import Litestar

from jobflow.app import create_app
from jobflow.broker import Broker
from jobflow.embedded import Urls
from jobflow.pool import Connection, Pool
from jobflow.settings import Settings, load
from jobflow.store import Store
from tests.support.servers import fresh_database, private_servers, with_database

redis_numbers = itertools.cycle(range(1, 16))

# No time limit for an example, and the same ones each time; --hypothesis-profile=default tries others.
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="session")
def servers() -> Iterator[Urls]:
    """PostgreSQL and Valkey of this run."""
    with private_servers() as urls:
        yield urls


@pytest.fixture(scope="session")
def template(servers: Urls) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    from jobflow.migrate import upgrade

    with fresh_database(servers.database_url) as url:
        asyncio.run(upgrade(url))
        yield url.rpartition("/")[2]


@pytest.fixture
def empty_url(servers: Urls) -> Iterator[str]:
    """A database without anything."""
    with fresh_database(servers.database_url) as url:
        yield url


@pytest.fixture
def database_url(servers: Urls, template: str) -> Iterator[str]:
    """A migrated database without jobs."""
    from jobflow.migrate import upgrade

    with fresh_database(servers.database_url, template) as url:
        asyncio.run(upgrade(url))  # for the settings of the role, which a copy does not carry
        yield url


@pytest.fixture
def redis_url(servers: Urls) -> str:
    """An empty Redis database; the next tests get other ones, so that late writers do not reach them."""
    url = with_database(servers.redis_url, str(next(redis_numbers)))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Connection]:
    """A connection of the test's own, to look at what really is there."""
    connection = await asyncpg.connect(database_url, ssl=False)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(database_url, shares={"test": 8, "other": 4})
    yield pool
    await pool.close()


@pytest.fixture
def store(pool: Pool) -> Store:
    return Store(pool, "test")


@pytest.fixture
async def broker(redis_url: str) -> AsyncIterator[Broker]:
    broker = Broker(redis_url, lane_size=1_000, pool_size=8)
    yield broker
    await broker.close()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of an application under test: short times, no rate limit that matters, the tests' own handlers."""
    return load(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JOBFLOW_HANDLERS": "tests.support.handlers",
            "WORKER_CONCURRENCY": "10",
            "RATE_LIMIT_MAX": "1000000",
            "JOBFLOW_LEASE": "2",
            "JOBFLOW_GRACE": "5",
            "JOBFLOW_LOG_LEVEL": "error",
        }
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Litestar]:
    """The whole application, running in the test's loop."""
    app = create_app(settings)
    async with app.lifespan():
        yield app


@pytest.fixture
async def http(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client
