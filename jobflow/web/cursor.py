"""Where the next page begins, as an opaque text that fits only the list it came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
from uuid import UUID

import msgspec

from jobflow.errors import Malformed
from jobflow.listing import JobFilter

MARK = 8  # bytes of the filter's hash


def encode(last: UUID, wanted: JobFilter) -> str:
    """A cursor for the page below ``last`` of this list: 32 characters that are safe in a URL."""
    return base64.urlsafe_b64encode(last.bytes + _mark(last, wanted)).decode()


def decode(cursor: str, wanted: JobFilter) -> UUID:
    """The id below which the page begins. Raises Malformed: not a cursor of ours, or one of a list with other filters."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raw = b""
    if len(raw) != 16 + MARK:
        raise Malformed("This cursor is not one that Jobflow gave out: take next_cursor as it is, or leave it out.")
    last = UUID(bytes=raw[:16])
    if raw[16:] != _mark(last, wanted):
        raise Malformed("This cursor belongs to a list with other filters: repeat them, or leave the cursor out.")
    return last


def _mark(last: UUID, wanted: JobFilter) -> bytes:
    return hashlib.blake2b(last.bytes + msgspec.json.encode(wanted), digest_size=MARK).digest()
