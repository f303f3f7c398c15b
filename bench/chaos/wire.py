"""Reads what a client sends to PostgreSQL, so that a proxy knows which statement an answer belongs to.

Frames are those of the manual's chapter "Frontend/Backend Protocol": a letter and a length, but for the first messages of
a connection, which have no letter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

STARTUP = 196608  # protocol 3.0
READY = b"Z\x00\x00\x00\x05"  # and one byte: I idle, T in a transaction, E in one that failed


class Statements:
    """Follows one connection from its beginning: prepared statements by name, and whether a transaction is open."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun = False
        self._prepared: dict[bytes, str] = {}
        self._bound = ""
        self.in_transaction = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The text of each statement that these bytes have the server execute."""
        self._buffer += data
        while not self._begun and len(self._buffer) >= 8:
            length, code = struct.unpack_from("!ii", self._buffer)
            if len(self._buffer) < length:
                return
            del self._buffer[:length]
            self._begun = code == STARTUP
        while self._begun and len(self._buffer) >= 5:
            length = 1 + struct.unpack_from("!i", self._buffer, 1)[0]
            if len(self._buffer) < length:
                return
            letter, body = self._buffer[:1], bytes(self._buffer[5:length])
            del self._buffer[:length]
            if letter == b"P":
                name, prepared, _ = body.split(b"\0", 2)
                self._prepared[name] = prepared.decode(errors="replace")
            elif letter == b"B":
                _, name, _ = body.split(b"\0", 2)
                self._bound = self._prepared.get(name, "")
            elif letter == b"E":
                yield self._bound
            elif letter == b"Q":
                text = body.rstrip(b"\0").decode(errors="replace")
                self._follow(text)
                yield text

    def _follow(self, text: str) -> None:
        word = text.lstrip().partition(" ")[0].rstrip(";").upper()
        if word in ("BEGIN", "START"):
            self.in_transaction = True
        elif word in ("COMMIT", "ROLLBACK", "END"):
            self.in_transaction = False
