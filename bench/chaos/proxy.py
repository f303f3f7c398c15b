"""A TCP proxy before a server that can delay, cut, keep silent, and lose an answer after the server has given it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from bench.chaos.wire import READY, Statements

CHUNK = 65_536
GONE = (OSError, RuntimeError)  # the latter is uvloop's word for a connection that was reset meanwhile


class Trap:
    """Waits for one statement, then loses its answer, once the server has committed what it did.

    matches: told the text of a statement (for Redis: what was sent). silent: the connection stays open and says nothing
    more, so that the client has to lose its patience; else it is reset.
    """

    def __init__(self, matches: Callable[[str], bool], *, silent: bool) -> None:
        self.matches, self.silent = matches, silent
        self.sprung = asyncio.Event()


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.statements = Statements()
        self.armed: Trap | None = None  # its statement was seen inside a transaction: the COMMIT's answer is meant
        self.losing: Trap | None = None
        self.lost = b""  # the end of the answer that is being lost

    def reset(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()


class Proxy:
    """``target()`` gives the server's port, which may change when it is started again. ``postgres``: its wire is understood."""

    def __init__(self, target: Callable[[], int], *, postgres: bool) -> None:
        self._target, self._postgres = target, postgres
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._through = asyncio.Event()
        self._through.set()
        self.delay = 0.0  # seconds that each answer is held back
        self.trap: Trap | None = None

    async def start(self) -> int:
        """Listen on a free port of this machine; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.reset()

    def hold(self) -> None:
        """Let nothing through in either direction; connections stay open."""
        self._through.clear()

    def release(self) -> None:
        self._through.set()

    async def close(self) -> None:
        self.release()
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(reader, link), self._answers(server_reader, link))
        finally:
            self._links.discard(link)
            link.reset()

    async def _requests(self, reader: asyncio.StreamReader, link: Link) -> None:
        with suppress(*GONE):
            while data := await reader.read(CHUNK):
                await self._through.wait()
                self._watch(link, data)
                link.server.write(data)
                await link.server.drain()
        link.server.close()

    async def _answers(self, reader: asyncio.StreamReader, link: Link) -> None:
        with suppress(*GONE):
            while data := await reader.read(CHUNK):
                await self._through.wait()
                if link.losing is not None:
                    if self._lose(link, link.losing, data):
                        return
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                link.client.write(data)
                await link.client.drain()
        link.client.close()

    def _watch(self, link: Link, data: bytes) -> None:
        if not self._postgres:
            if self.trap is not None and self.trap.matches(data.decode("latin-1")):
                link.losing, self.trap = self.trap, None
            return
        for text in link.statements.feed(data):
            if link.armed is not None:
                if not link.statements.in_transaction:
                    # Rolled back: not what we wait for.
                    trap, link.armed = link.armed, None
                    if text.lstrip().upper().startswith("COMMIT"):
                        link.losing = trap
                    else:
                        self.trap = trap
            elif self.trap is not None and self.trap.matches(text):
                trap, self.trap = self.trap, None
                if link.statements.in_transaction:
                    link.armed = trap
                else:
                    link.losing = trap

    def _lose(self, link: Link, trap: Trap, data: bytes) -> bool:
        """Swallow a part of an answer; True: it was the last one and the connection is gone."""
        link.lost = (link.lost + data)[-6:]
        if self._postgres and not link.lost.startswith(READY):
            return False  # the commit comes before this
        trap.sprung.set()
        if not trap.silent:
            link.reset()
        return not trap.silent
