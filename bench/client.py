"""HTTP by hand: requests are bytes made beforehand, so that a client costs little of what it measures."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HTML = "Accept: text/html\r\n"
JOB = {"to": "user@example.com", "subject": "Hello"}  # a payload


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


def get(path: str, headers: str = "") -> bytes:
    """headers: whole lines."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def post_job(type: str = "noop", payload: Any = JOB) -> bytes:
    return post("/jobs", json.dumps({"type": type, "payload": payload}).encode())


def post_bulk(count: int, type: str = "noop", payload: Any = JOB) -> bytes:
    return post("/jobs/bulk", json.dumps({"jobs": [{"type": type, "payload": payload}] * count}).encode())


def cookie_of(answer: Answer) -> str:
    """What a browser would send from then on; empty if the answer sets none."""
    return answer.head.partition(b"set-cookie: ")[2].partition(b";")[0].decode()


class Client:
    """One connection, opened when it is needed; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError or EOFError: there was no answer, or only a part of one; the next call connects again."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
        except BaseException:
            self.close()
            raise
        return Answer(int(head[9:12]), head, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
