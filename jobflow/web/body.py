"""How a body must come: plain ``application/json``, not compressed, not too large."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from jobflow import payloads
from jobflow.errors import Fault, Invalid
from jobflow.web.call import Call, read_chunks
from jobflow.web.problems import Refused

JOB_BYTES = 256 * 1024
BULK_BYTES = 16 * 1024 * 1024
SECONDS, BULK_SECONDS = 30.0, 120.0  # for the whole body; the server itself would wait for the rest for ever
LOOK = 1.0  # seconds between two looks at bodies that are on their way
GIVEN_UP = math.inf


class Patience:
    """Gives up bodies that do not come in time. All are looked at together: a timer for each cost a tenth of a POST."""

    def __init__(self) -> None:
        self._until: dict[asyncio.Task[Any], float] = {}  # by whom it is read → loop time
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, request: Call, limit: int, seconds: float) -> bytes | None:
        """Any body, or None when it is longer than ``limit`` bytes. Raises Refused: 408; Malformed."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  (told to the type checker)
        if loop is not self._loop:
            self._loop = loop
            self._look(loop)
        self._until[task] = loop.time() + seconds
        try:
            return await read_chunks(request.receive, limit)
        except asyncio.CancelledError:
            if self._until[task] != GIVEN_UP or task.uncancel():
                raise  # somebody else's
            # The rest may still come, and would be taken for the next request.
            raise Refused(408, f"The body did not come within {seconds:g} s.", {"Connection": "close"}) from None
        finally:
            del self._until[task]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, until in self._until.items():
            if until < now:
                self._until[task] = GIVEN_UP
                task.cancel()
        loop.call_later(LOOK, self._look, loop)


patience = Patience()


async def read_body(request: Call, limit: int = JOB_BYTES, seconds: float = SECONDS) -> bytes:
    """Read the body; it is refused by its Content-Length, or while it is read, when it is longer than ``limit`` bytes.

    Raises Refused: 415 unless it is uncompressed ``application/json`` in UTF-8 (an empty body needs no type), 413, 408.
    """
    headers = request.visit.headers
    length = headers.get(b"content-length")
    _check_type(headers, empty=b"transfer-encoding" not in headers and (length is None or length == b"0"))
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    raw = await patience.read(request, limit, seconds)
    if raw is None:
        raise _too_large(limit)
    return raw


async def read_json(request: Call) -> Any:
    """The body of one job, as a tree. Raises Malformed, Invalid, Refused."""
    return payloads.parse(await read_body(request))


async def read_nothing(request: Call) -> None:
    """For actions that take no members: an empty body or ``{}``, so that nothing said is silently ignored.

    Raises Invalid: it says something. Malformed, Refused.
    """
    if raw := await read_body(request):
        tree = payloads.parse(raw)
        if not isinstance(tree, dict):
            raise Invalid(Fault("", "must be empty or {}"))
        if tree:
            raise Invalid(*(Fault(payloads.token(key), "is not taken here") for key in tree))


def _check_type(headers: dict[bytes, bytes], *, empty: bool) -> None:
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise Refused(
            415, "Compressed bodies are not taken; send it without Content-Encoding.", {"Accept-Encoding": "identity"}
        )
    content_type = headers.get(b"content-type")
    if content_type == b"application/json" or (content_type is None and empty):
        return
    media, *parameters = [part.strip().lower() for part in (content_type or b"").split(b";")]
    charsets = [p.partition(b"=")[2].strip(b'"') for p in parameters if p.startswith(b"charset=")]
    if media != b"application/json" or any(charset not in (b"utf-8", b"utf8") for charset in charsets):
        raise Refused(415, "The body must be JSON in UTF-8: send it with Content-Type: application/json.")


def _too_large(limit: int) -> Refused:
    return Refused(413, f"The body is larger than {limit // 1024} KiB, the most this path takes.", limit_bytes=limit)
