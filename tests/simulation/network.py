"""What lies between a process and its servers: answers late or lost, requests that arrive after their sender has gone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from jobflow.errors import StoreUnavailable
from jobflow.pool import answered, usable
from jobflow.statements import SQL
from jobflow.store import JOB_WITH_HISTORY
from tests.simulation.clock import VirtualLoop
from tests.simulation.postgres import Blocked, Postgres, Record, Transaction

NAMES = {text: name for name, text in SQL.items()} | {JOB_WITH_HISTORY: "get_job"}
SLOW = 6.0  # seconds that a request may be on its way at most
DAWDLES = 7.0  # seconds that a claim is on its way whose sender stands still
TIMEOUT = 4.0  # seconds after which a client gives an answer up


class Server:
    """Postgres as it is reached: up, standing still or away. ``note(text)`` keeps what happened."""

    def __init__(self, loop: VirtualLoop, model: Postgres, random: Random, note: Callable[[str], None]) -> None:
        self.loop, self.model, self.random, self.note = loop, model, random, note
        self.up, self.still, self.doomed = True, False, False
        self.waiting: list[tuple[Any, ...]] = []  # what arrived while the server stood still
        self.sessions: dict[int, Session] = {}
        self._numbers = itertools.count(1)

    def open(self, session: Session) -> int:
        number = next(self._numbers)
        self.sessions[number] = session
        return number

    def crash(self) -> None:
        """Once for each time that it is ``doomed``; it is away for longer than its clock may jump."""
        if not self.doomed or self.still:
            return
        self.doomed = self.up = False
        self.loop.outside(1 + self.random.random() * 7, setattr, self, "up", True)
        for session in list(self.sessions.values()):
            session.end()
        self.waiting.clear()
        forgotten = self.model.crash(lambda n: self.random.randint(0, n))
        self.note(f"postgres crashes, {forgotten} commits are forgotten")

    def move_on(self) -> None:
        self.still = False
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            self.loop.outside(self.random.random() * 0.01, self.arrive, *request)

    def arrive(
        self, session: Session, work: str, args: tuple[Any, ...], answer: asyncio.Future[Any], late: bool
    ) -> None:
        """A request reaches the server; what it does is done even if nobody waits for the answer any more."""
        if session.gone or session.aborted:
            return
        if session.link.dawdle is not None and work == "claim_jobs":
            dawdle, session.link.dawdle = session.link.dawdle, None
            dawdle()
            self.loop.outside(DAWDLES, self.arrive, session, work, args, answer, late)
            return
        if self.still:
            self.waiting.append((session, work, args, answer, late))
            self.loop.outside(session.patience, _fail, answer, asyncpg.ConnectionDoesNotExistError("no answer in time"))
            return
        try:
            rows = self._do(session, work, args)
        except Blocked:
            self.loop.outside(0.02, self.arrive, session, work, args, answer, late)
            return
        except asyncpg.PostgresError as error:
            self.loop.outside(0.0001, _fail, answer, error)
            return
        self.note(
            f"{session.owner}: {work} → {len(rows) if isinstance(rows, list) else rows}{' (answer lost)' if late else ''}"
        )
        if self.doomed and rows and work == "claim_jobs":
            self.loop.outside(self.random.random() * 0.004, self.crash)
        if not late:
            self.loop.outside(session.delay(), _give, answer, rows, session, work, args)

    def _do(self, session: Session, work: str, args: tuple[Any, ...]) -> Any:
        if work == "COMMIT":
            if session.tx is None:
                raise asyncpg.InterfaceError("no transaction")
            transaction, session.tx = session.tx, None
            self.model.commit(transaction)
            return []
        if work == "SELECT now()":
            return [Record(now=self.model.now())]
        if work == "end_backend":
            other = self.sessions.get(args[0])
            if other is not None:
                other.end()
            return [Record(there=other is not None)]
        return self.model.run(work, args, session.tx)


def _give(answer: asyncio.Future[Any], rows: Any, session: Session, work: str, args: tuple[Any, ...]) -> None:
    if not answer.done() and not session.gone:
        session.heard(work, args, rows)
        answer.set_result(rows)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # it was seen, even if whoever asked is dead


class Link:
    """The way of one process to Postgres. ``cut``: nothing gets through. ``loss``: share of requests that are lost.

    patience: seconds that the heartbeat waits for an answer.
    """

    def __init__(self, server: Server, owner: str, patience: float) -> None:
        self.server, self.owner, self.patience, self.cut, self.loss = server, owner, patience, False, 0.0
        self.dawdle: Callable[[], None] | None = None  # called when a claim is on its way, which then takes very long
        self.answered: set[tuple[UUID, int]] = set()  # runs whose ending was answered


class Session:
    """One connection, with the methods of asyncpg's that the product uses."""

    def __init__(self, link: Link, *, steady: bool = False) -> None:
        self.link, self.server, self.owner, self.steady = link, link.server, link.owner, steady
        self.tx: Transaction | None = None
        self.gone = False  # on the server's side
        self.closed = False  # on the client's
        self.torn = False
        self.aborted = False  # it broke in a transaction: what arrives late is part of it, and is never committed
        self._pending: dict[asyncio.Future[Any], None] = {}  # in order, unlike a set of them
        self.patience = link.patience if steady else TIMEOUT
        self.number = self.server.open(self)

    def delay(self) -> float:
        random = self.server.random
        slow = random.random() < 0.01 and not self.steady
        return random.random() * (0.3 if slow else 0.002)

    def end(self) -> None:
        """The server ends it: what waits for an answer hears so soon."""
        self.gone = True
        self.server.sessions.pop(self.number, None)
        self._roll_back()
        for answer in self._pending:
            self.server.loop.outside(0.001, _fail, answer, asyncpg.ConnectionDoesNotExistError("the server has gone"))

    def heard(self, work: str, args: tuple[Any, ...], rows: list[Record]) -> None:
        if work in ("complete_jobs", "end_runs"):
            epochs = dict(zip(args[0], args[1], strict=True))
            self.link.answered.update((row["id"], epochs[row["id"]]) for row in rows)
        elif work == "read_endings":
            self.link.answered.update(zip(args[0], args[1], strict=True))

    async def ask(self, work: str, *args: Any) -> Any:
        if self.closed or self.gone:
            self.closed = True
            raise asyncpg.InterfaceError("the connection is closed")
        loop, random = self.server.loop, self.server.random
        answer: asyncio.Future[Any] = loop.create_future()
        self._pending[answer] = None
        lost = self.link.cut or (random.random() < self.link.loss and not self.steady)
        arrives = not lost or random.random() < 0.6
        if arrives:
            way = random.random() * SLOW if lost else self.delay()
            loop.outside(way, self.server.arrive, self, work, args, answer, lost)
        if lost:
            self.torn = True
            loop.outside(TIMEOUT * random.random(), _fail, answer, asyncpg.ConnectionDoesNotExistError("no answer"))
        try:
            return await answer
        except asyncpg.PostgresConnectionError:
            self.closed = True
            raise
        finally:
            self._pending.pop(answer, None)

    async def fetch(self, text: str, *args: Any, **_: Any) -> list[Record]:
        found: list[Record] = await self.ask(NAMES.get(text, text), *args)
        return found

    async def fetchrow(self, text: str, *args: Any, **_: Any) -> Record | None:
        rows = await self.fetch(text, *args)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *args: Any, **_: Any) -> Any:
        rows = await self.fetch(text, *args)
        return rows[0][0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.tx = Transaction()
        try:
            yield
        except BaseException:
            self.aborted = self.closed
            self._roll_back()
            raise
        if "commit first" in self.server.model.off:
            self.server.loop.create_task(self.ask("COMMIT"))
            return
        await self.ask("COMMIT")

    def _roll_back(self) -> None:
        if self.tx is not None:
            self.server.model.roll_back(self.tx)
            self.tx = None

    def get_server_pid(self) -> int:
        return self.number

    def is_closed(self) -> bool:
        return self.closed or self.gone

    def is_in_transaction(self) -> bool:
        return self.tx is not None

    def terminate(self) -> None:
        """A server that is cut off, or stands still, notices late: what was on its way is done all the same."""
        self.closed = True
        self.server.loop.outside(self.server.random.random() * SLOW if self.torn else 0.001, self.end_later)

    def end_later(self) -> None:
        if self.server.still:
            self.server.loop.outside(0.5, self.end_later)
        elif not self.gone:
            self.end()


class Held:
    def __init__(self, raw: Session) -> None:
        self.raw = raw

    async def give_back(self, *, broken: bool) -> None:
        if broken:
            self.raw.terminate()


class Pool:
    """In the place of jobflow.pool.Pool: the product's own Store runs on it unchanged."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._idle: list[Session] = []

    async def take(self, share: str) -> Held:
        return Held(await connect(self._link))

    @asynccontextmanager
    async def connection(self, share: str) -> AsyncIterator[Any]:
        raw = self._idle.pop() if self._idle else await connect(self._link)
        broken = True
        try:
            with answered(raw):  # type: ignore[arg-type]
                yield raw
            broken = False
        except Exception:
            broken = not usable(raw)  # type: ignore[arg-type]
            raise
        finally:
            if broken or raw.is_closed():
                raw.terminate()
            else:
                self._idle.append(raw)


async def connect(link: Link, *, steady: bool = False) -> Session:
    if link.cut or not link.server.up or link.server.still:
        await asyncio.sleep(1.0 if link.cut else 0.05)
        raise StoreUnavailable("Postgres is away.")
    await asyncio.sleep(0.0005)
    return Session(link, steady=steady)
