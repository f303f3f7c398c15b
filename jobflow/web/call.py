"""A request and its answer, as thin as they can be: raw bytes in, encoded bytes out.

Litestar's own body and response classes cost 50 µs a request, these 4; POST /jobs lives on the difference.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.types import Receive, Scope, Send

from jobflow.errors import Malformed
from jobflow.web.parts import Parts

Headers = list[tuple[bytes, bytes]]

JSON_HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_encode = msgspec.json.Encoder().encode


class Visit:
    """What the door found out about a request before it was let in."""

    __slots__ = ("extra", "headers", "method", "parts", "path", "query", "request_id")

    def __init__(self, parts: Parts, scope: Any, headers: dict[bytes, bytes], request_id: str) -> None:
        self.parts = parts
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers = headers  # lower-case names; a list-valued header that came twice is joined
        self.request_id = request_id
        self.extra: Headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]

    @property
    def target(self) -> str:
        """The path with its query, as a link."""
        return f"{self.path}?{self.query.decode('latin-1')}" if self.query else self.path


class Answer:
    """A response whose body is encoded already; an ASGI application."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        self.status, self.body, self.headers = status, body, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self.headers
        if self.status not in (204, 304):
            headers = [*headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Call(Request[None, None, State]):
    """The request as handlers see it."""

    @property
    def visit(self) -> Visit:
        visit: Visit = self.scope["state"]["visit"]
        return visit

    @property
    def parts(self) -> Parts:
        return self.visit.parts

    @property
    def query_bytes(self) -> bytes:
        return self.scope["query_string"]


def json_answer(value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    """Encode with msgspec: datetimes as RFC 3339 with Z, UUIDs as text, Raw as it is."""
    return Answer(status, _encode(value), [*JSON_HEADERS, *headers])


def text_answer(text: str, status: int = 200) -> Answer:
    return Answer(
        status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    )


async def read_chunks(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None as soon as it is longer than ``limit`` bytes. Raises Malformed: it ended too early."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("The connection was closed before the body was complete.")
        chunk = message["body"]
        size += len(chunk)
        if size > limit:
            return None
        if not message["more_body"]:
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)
