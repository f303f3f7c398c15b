"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-06): reading the header, and what the key stands for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from jobflow.errors import Malformed

# The draft's form is an RFC 8941 string, in quotes; most clients send the key bare.
_QUOTED = re.compile(rb'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(rb"[\x21\x23-\x7e][\x21-\x7e]*")
_ESCAPE = re.compile(rb"\\(.)")
KEY_LENGTH = 255

_canonical = msgspec.json.Encoder(order="sorted").encode


def read_key(headers: dict[bytes, bytes]) -> str | None:
    """The key of a request, without its quotes: 1 to 255 visible ASCII characters. Raises Malformed."""
    value = headers.get(b"idempotency-key")
    if value is None:
        return None
    value = value.strip(b" \t")
    if match := _QUOTED.fullmatch(value):
        key = _ESCAPE.sub(rb"\1", match[1])
    else:
        key = value if _BARE.fullmatch(value) else b""
    if not 1 <= len(key) <= KEY_LENGTH:
        raise Malformed(
            f"Idempotency-Key must be 1 to {KEY_LENGTH} visible ASCII characters, in double quotes or bare."
        )
    return key.decode()


class Fingerprint:
    """Hash of method, path and body: the same for every spelling of the same JSON (order of members, white space)."""

    def __init__(self, method: str, path: str) -> None:
        self._hash = hashlib.blake2b(f"{method} {path}\n".encode(), digest_size=32)

    def add(self, trees: Iterable[Any]) -> None:
        for tree in trees:
            self._hash.update(_canonical(tree) + b"\n")

    def digest(self) -> bytes:
        return self._hash.digest()
