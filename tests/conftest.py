"""Fixtures of all tests: private servers for each run, a fresh database and an empty Redis for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from jobflow.embedded import Urls
from tests.support.servers import fresh_database, private_servers, with_database

redis_numbers = itertools.cycle(range(1, 16))


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


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
def database_url(servers: Urls, template: str) -> Iterator[str]:
    """A migrated database without jobs."""
    with fresh_database(servers.database_url, template) as url:
        yield url


@pytest.fixture
def redis_url(servers: Urls) -> str:
    """An empty Redis database; the next tests get other ones, so that late writers do not reach them."""
    url = with_database(servers.redis_url, str(next(redis_numbers)))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
