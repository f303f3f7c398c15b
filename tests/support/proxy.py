"""A TCP proxy that can lose what a server answers: the client does not learn what became of its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Stands before a server.

    ``dropping``: answers are swallowed, requests still reach the server. ``marker``: dropping begins with the answer
    that holds these bytes.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropping = False
        self.marker: bytes | None = None
        self.dropped = asyncio.Event()  # something was swallowed
        self.swallowed = bytearray()

    @property
    def url(self) -> str:
        """The server's url by way of the proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        address = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{address}@127.0.0.1:{port}").geturl()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def cut(self) -> None:
        """End all connections of clients at once; those to the server stay open until it has done what it was asked."""
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """End all connections of clients, and lose nothing any more."""
        self.dropping, self.marker = False, None
        self.cut()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.CancelledError):  # by close()
                await asyncio.gather(self._requests(reader, server_writer), self._answers(server_reader, writer))
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            for end in (writer, server_writer):
                end.close()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                server.write(data)
                await server.drain()
        with suppress(OSError):
            server.write_eof()

    async def _answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await server.read(65_536):
                if self.dropping or (self.marker is not None and self.marker in data):
                    self.dropping = True
                    self.dropped.set()
                    self.swallowed += data
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
