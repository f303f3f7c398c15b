from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobflow import pool as pool_module
from jobflow.errors import AnswerLost, NotFound, StoreUnavailable
from jobflow.pool import Connection, Held, Pool, sqlalchemy_url
from tests.support.commands import free_port
from tests.support.proxy import proxied
from tests.support.waiting import until


@pytest.fixture
async def small(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    pool = Pool(database_url, shares={"one": 1, "two": 2})
    monkeypatch.setattr(pool_module, "CONNECT_TIMEOUT", 0.3)  # for who waits; connecting has its usual time
    yield pool
    await pool.close()


async def backend_of(pool: Pool, share: str) -> int:
    async with pool.connection(share) as connection:
        backend: int = await connection.fetchval("SELECT pg_backend_pid()")
        return backend


async def use(pool: Pool, *statements: str, error: Exception | None = None) -> None:
    """Run statements over one connection, and then raise ``error``."""
    async with pool.connection("one") as connection:
        for statement in statements:
            await connection.execute(statement)
        if error is not None:
            raise error


async def test_a_share_that_is_used_up_refuses_and_does_not_touch_another(small: Pool) -> None:
    async with small.connection("one"):
        with pytest.raises(StoreUnavailable, match="connections for one are busy") as caught:
            await small.take("one")
        assert not isinstance(caught.value, AnswerLost)  # nothing was sent
        async with small.connection("two") as first, small.connection("two") as second:
            assert await first.fetchval("SELECT 1") == 1
            assert await second.fetchval("SELECT 1") == 1
    assert await backend_of(small, "one")


async def test_who_waits_gets_the_connection_that_is_given_back(small: Pool) -> None:
    held = await small.take("one")
    waiting = asyncio.create_task(backend_of(small, "one"))
    await asyncio.sleep(0)
    backend = held.raw.get_server_pid()
    await held.give_back(broken=False)
    assert backend == await waiting


async def test_who_goes_away_while_waiting_takes_nothing_along(small: Pool) -> None:
    held = await small.take("one")
    waiting = asyncio.create_task(backend_of(small, "one"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await held.give_back(broken=False)
    assert await backend_of(small, "one")


async def test_a_connection_is_used_again(small: Pool) -> None:
    assert len({await backend_of(small, "one") for _ in range(3)}) == 1


async def test_a_backend_that_ends_in_the_middle_of_a_statement_is_a_lost_answer(
    small: Pool, database: Connection
) -> None:
    async def sleep() -> None:
        async with small.connection("one") as connection:
            started.set_result(connection.get_server_pid())
            await connection.fetchval("SELECT pg_sleep(30)")

    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    sleeping = asyncio.create_task(sleep())
    backend = await started
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
    await until(lambda: database.fetchval(asleep, backend))
    await database.execute("SELECT pg_terminate_backend($1)", backend)
    with pytest.raises(AnswerLost) as caught:
        await sleeping
    assert backend == caught.value.backend
    assert backend != await backend_of(small, "one")


@pytest.mark.parametrize("ending", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_statement_that_the_server_ends_is_a_lost_answer(
    small: Pool, database: Connection, ending: str
) -> None:
    with pytest.raises(AnswerLost):
        await use(small, f"SELECT {ending}(pg_backend_pid())")
    assert await backend_of(small, "one")


async def test_a_connection_that_the_server_ended_while_it_rested_is_a_lost_answer_at_worst(
    small: Pool, database: Connection
) -> None:
    """The statement may meet the server's farewell at any moment."""
    for turns in range(6):
        backend = await backend_of(small, "one")
        await database.execute("SELECT pg_terminate_backend($1)", backend)
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            after = await backend_of(small, "one")
        except StoreUnavailable:
            after = await backend_of(small, "one")
        assert backend != after


async def test_a_connection_that_ended_while_it_rested_is_opened_anew(small: Pool, database: Connection) -> None:
    held = await small.take("one")
    before, ended = held.raw.get_server_pid(), asyncio.Event()
    held.raw.add_termination_listener(lambda _: ended.set())
    await held.give_back(broken=False)
    await database.execute("SELECT pg_terminate_backend($1)", before)
    await ended.wait()
    assert before != await backend_of(small, "one")


async def test_who_gives_up_while_it_connects_leaves_no_error_and_no_connection(
    database_url: str, database: Connection
) -> None:
    left: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    pool = Pool(database_url, shares={"one": 1})
    open_ones = """SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'jobflow' AND datname = current_database()"""  # other tests run beside this one
    others = await database.fetchval(open_ones)
    for turns in range(40):  # of the loop; a connection is there after about as many
        taking = asyncio.create_task(pool.take("one"))
        for _ in range(turns):
            await asyncio.sleep(0)
        taking.cancel()
        for held in await asyncio.gather(taking, return_exceptions=True):
            if isinstance(held, Held):
                await held.give_back(broken=True)
    await until(lambda: database.fetchval(open_ones), others.__eq__)
    await pool.close()
    gc.collect()
    assert left == []


async def test_a_statement_that_takes_too_long_is_a_lost_answer(small: Pool) -> None:
    with pytest.raises(AnswerLost):
        await use(small, "SET statement_timeout = '20ms'", "SELECT pg_sleep(30)")
    assert await backend_of(small, "one")


async def test_an_error_in_a_statement_is_told_as_it_is_and_keeps_the_connection(small: Pool) -> None:
    before = await backend_of(small, "one")
    for statement, error in {
        "SELECT 1 / 0": asyncpg.DivisionByZeroError,
        "SELECT nothing": asyncpg.UndefinedColumnError,
    }.items():
        with pytest.raises(error):
            async with small.connection("one") as connection, connection.transaction():
                await connection.execute(statement)
    with pytest.raises(asyncpg.DataError):
        async with small.connection("one") as connection:
            await connection.fetchval("SELECT $1::int", "one")
    assert before == await backend_of(small, "one")


async def test_an_error_of_who_uses_it_keeps_the_connection_unless_its_transaction_is_open(small: Pool) -> None:
    before = await backend_of(small, "one")
    for error in (NotFound("no"), ValueError("no")):
        with pytest.raises(type(error)):
            await use(small, "SELECT 1", error=error)
        with pytest.raises(type(error)):
            await use(small, "BEGIN", "SELECT 1", "ROLLBACK", error=error)
        assert before == await backend_of(small, "one")
    with pytest.raises(NotFound):
        await use(small, "BEGIN", error=NotFound("no"))
    assert before != await backend_of(small, "one")


async def test_who_goes_away_in_the_middle_of_a_statement_leaves_no_connection_behind(
    small: Pool, database: Connection
) -> None:
    async def sleep() -> None:
        async with small.connection("one") as connection:
            await connection.fetchval("SELECT pg_sleep(30)")

    before = await backend_of(small, "one")
    sleeping = asyncio.create_task(sleep())
    await until(
        lambda: database.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)' AND state = 'active'"
        )
    )
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert before != await backend_of(small, "one")


async def test_without_a_server_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", shares={"one": 1})
    for _ in range(3):  # a share is not used up by failures
        with pytest.raises(StoreUnavailable, match="does not answer") as caught:
            await pool.take("one")
        assert not isinstance(caught.value, AnswerLost)
    await pool.close()


@pytest.mark.parametrize("path", ["/nowhere", ""])
async def test_a_database_or_role_that_is_not_there_is_a_server_away(database_url: str, path: str) -> None:
    base = database_url.rpartition("/")[0]
    url = base + path if path else database_url.replace("//", "//nobody_", 1)
    pool = Pool(url, shares={"one": 1})
    with pytest.raises(StoreUnavailable):
        await pool.take("one")
    await pool.close()


async def test_a_connection_that_is_cut_is_a_lost_answer_and_the_next_one_works(
    database_url: str, database: Connection
) -> None:
    async with proxied(database_url) as proxy:
        pool = Pool(proxy.url, shares={"one": 1})
        sleeping = asyncio.create_task(use(pool, "SELECT pg_sleep(29)"))
        active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(29)' AND state = 'active'"
        await until(lambda: database.fetchval(active))
        proxy.cut()
        with pytest.raises(AnswerLost):
            await sleeping
        assert await backend_of(pool, "one")
        await pool.close()


async def test_closing_ends_the_connections_that_loops_keep(database_url: str, database: Connection) -> None:
    pool = Pool(database_url, shares={"one": 2})
    await pool.take("one")
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobflow' AND datname = current_database()"
    assert await database.fetchval(count) == 1
    await pool.close()
    await until(lambda: database.fetchval(count), lambda left: left == 0)


async def test_the_pool_opens_no_more_than_the_sum_of_its_shares(database_url: str, database: Connection) -> None:
    pool = Pool(database_url, shares={"one": 1, "two": 2})
    await asyncio.gather(*(backend_of(pool, share) for share in ("one", "two") * 5))
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobflow' AND datname = current_database()"
    assert await database.fetchval(count) <= 3
    await pool.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_ways_to_write_a_url_are_understood(scheme: str) -> None:
    url = sqlalchemy_url(f"{scheme}://user:p%40ss@host:5433/db?sslmode=require")
    assert (*(url.drivername, url.password, url.host, url.port, url.database),) == (
        "postgresql+asyncpg",
        "p@ss",
        "host",
        5433,
        "db",
    )
