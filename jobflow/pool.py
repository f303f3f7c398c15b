"""The one Postgres pool of a process, shared out so that no user of it can starve another.

It belongs to the SQLAlchemy engine; the hot path takes the asyncpg connection out of the engine's, so that it runs
prepared statements without SQLAlchemy's cost per statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from jobflow.errors import AnswerLost, StoreUnavailable

Connection: TypeAlias = "asyncpg.Connection[Any]"
Row: TypeAlias = asyncpg.Record

CONNECT_TIMEOUT = 5.0  # seconds
STATEMENT_TIMEOUT = 12.0  # seconds; the server's own, 10 s, comes first while it answers at all

# Errors of the connection, not of the statement.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement sent between the server's farewell and the end of the connection
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # it became a replica: another connection may lead to the new primary
)

# What a server says to whoever it does not let in; to us it is away until somebody mends that.
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # another password, no such role
    asyncpg.InvalidCatalogNameError,  # the database was dropped, or is being renamed
    asyncpg.ObjectNotInPrerequisiteStateError,  # ALTER DATABASE … ALLOW_CONNECTIONS false
    asyncpg.InsufficientPrivilegeError,  # REVOKE CONNECT
)


def sqlalchemy_url(database_url: str) -> URL:
    """``postgresql://`` or ``postgres://`` as SQLAlchemy wants it for asyncpg."""
    return make_url(database_url).set(drivername="postgresql+asyncpg")


def _cause(error: exc.DBAPIError) -> BaseException:
    orig = error.orig
    return (orig.__cause__ or orig) if orig is not None else error


@contextmanager
def translated() -> Iterator[None]:
    """Turn every way a server can be away, or refuse us, into StoreUnavailable."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(f"Postgres does not answer: {error or type(error).__name__}") from error
    except exc.TimeoutError as error:
        raise StoreUnavailable("All Postgres connections of this process are busy.") from error
    except exc.DBAPIError as error:
        cause = _cause(error)
        if isinstance(cause, _AWAY):
            raise StoreUnavailable(f"Postgres does not answer: {cause}") from error
        if isinstance(cause, _REFUSED):
            raise StoreUnavailable(f"Postgres refuses: {cause}") from error
        raise


async def _connect(*args: Any, **options: Any) -> Connection:
    """Connect to the end, even if who asked gives up.

    Cancelled between the socket and the server's word on TLS, asyncpg leaves an error that nobody collects.
    """
    opening = asyncio.ensure_future(asyncpg.connect(*args, **options))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_let_go)
        raise


def _let_go(opening: asyncio.Future[Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


def _reject_closed(dbapi_connection: Any, *_: Any) -> None:
    """A connection that ended while it was idle is opened anew: nobody shall fail for it who has sent nothing."""
    if dbapi_connection.driver_connection.is_closed():
        raise exc.DisconnectionError


class Held:
    """One connection taken out of the pool: ``raw`` is asyncpg's."""

    __slots__ = ("_outer", "_pool", "_share", "raw")

    def __init__(self, outer: AsyncConnection, raw: Connection, share: asyncio.Semaphore, pool: Pool) -> None:
        self._outer, self.raw, self._share, self._pool = outer, raw, share, pool
        pool.held.add(self)

    async def give_back(self, *, broken: bool) -> None:
        try:
            if broken:
                await self._outer.invalidate()
            await self._outer.close()
        except Exception:  # noqa: S110  (it is gone either way, and the pool opens another)
            pass
        finally:
            self._pool.held.discard(self)
            self._share.release()


class Pool:
    """``shares``: how many connections each named user may hold at once; their sum is the pool's size."""

    def __init__(self, database_url: str, *, shares: Mapping[str, int]) -> None:
        self.held: set[Held] = set()
        self._shares = {name: asyncio.Semaphore(count) for name, count in shares.items()}
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(database_url),
            pool_size=sum(shares.values()),
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT,
            json_deserializer=str,  # JSON stays the text it is until somebody needs more
            connect_args={
                "async_creator_fn": _connect,
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": STATEMENT_TIMEOUT,
                "server_settings": {"application_name": "jobflow"},
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _reject_closed)

    async def take(self, share: str) -> Held:
        """Take a connection out. Raises StoreUnavailable: no server, or none free within 5 s."""
        semaphore = self._shares[share]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await semaphore.acquire()
        except TimeoutError:
            raise StoreUnavailable(f"All Postgres connections for {share} are busy.") from None
        try:
            with translated():
                outer = await self.engine.connect()
                raw = (await outer.get_raw_connection()).driver_connection
        except BaseException:
            semaphore.release()
            raise
        assert raw is not None  # noqa: S101  (told to the type checker)
        return Held(outer, raw, semaphore, self)

    @asynccontextmanager
    async def connection(self, share: str) -> AsyncIterator[Connection]:
        """A connection for the block. Raises StoreUnavailable (nothing was sent) or AnswerLost."""
        held = await self.take(share)
        broken = True
        try:
            with answered(held.raw):
                yield held.raw
            broken = False
        except AnswerLost:
            raise
        except Exception:
            broken = not usable(held.raw)
            raise
        finally:
            await held.give_back(broken=broken)

    async def close(self) -> None:
        """End every connection, those included that loops keep."""
        for held in list(self.held):
            await held.give_back(broken=True)
        await self.engine.dispose()


def usable(raw: Connection) -> bool:
    """Whether a connection is as good as new after an error that was not its own: of a statement, or of who used it."""
    return not raw.is_closed() and not raw.is_in_transaction()


@contextmanager
def answered(raw: Connection) -> Iterator[None]:
    """Turn a connection's end in the middle of a statement into AnswerLost."""
    backend = 0
    try:
        backend = raw.get_server_pid()
        yield
    except _AWAY as error:
        raise AnswerLost(f"Postgres did not answer: {error or type(error).__name__}", backend) from error
