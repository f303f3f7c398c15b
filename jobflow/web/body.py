"""How a body must come: plain ``application/json``, not compressed, not too large."""

from __future__ import annotations

from typing import Any

from jobflow import payloads
from jobflow.errors import Fault, Invalid
from jobflow.web.call import Call, read_chunks
from jobflow.web.problems import Refused

JOB_BYTES = 256 * 1024
BULK_BYTES = 16 * 1024 * 1024


async def read_body(request: Call, limit: int = JOB_BYTES) -> bytes:
    """Read the body; it is refused by its Content-Length, or while it is read, when it is longer than ``limit`` bytes.

    Raises Refused: 415 unless it is uncompressed ``application/json`` in UTF-8 (an empty body needs no type), 413.
    """
    headers = request.visit.headers
    length = headers.get(b"content-length")
    _check_type(headers, empty=b"transfer-encoding" not in headers and (length is None or length == b"0"))
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    raw = await read_chunks(request.receive, limit)
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
