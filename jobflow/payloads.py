"""Strict JSON in, clean JSON out: what people send is refused when it would not survive, what handlers return is mended.

In: RFC 8259 as narrowed by I-JSON (RFC 7493): no duplicate keys, no lone surrogates, integers within ±2^53,
finite numbers; and what Postgres or a reader cannot bear: NUL, keys above 255 characters, nesting above 64.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from jobflow.errors import Fault, Invalid, Malformed

DEPTH = 64  # containers inside each other, the outermost counts
KEY_LENGTH = 255  # characters
SAFE_INTEGER = 2**53
RESULT_BYTES = 256 * 1024
PREVIEW_BYTES = 8 * 1024
FAULTS = 20  # as many are reported at once

_decode = msgspec.json.Decoder().decode
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # Postgres takes no NUL, UTF-8 has no surrogates
_LONG_NUMBER = b"0" * 16  # 2^53 has 16 digits: without such a run every integer is safe
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))  # each as 0: a pattern takes ten times as long
_MEMBER = re.compile(rb'"\s*:')
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_QUOTED = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))


class _Repeated(list[tuple[str, Any]]):
    """The members of an object that names one twice."""


class _Unfit(str):
    """A number as it was written that no JSON reader can be trusted with."""


def parse(raw: bytes, *, depth: int = DEPTH) -> Any:
    """Read one JSON text.

    raw: UTF-8 without a byte order mark.
    depth: how many containers may stand inside each other; a deeper text costs no stack, however deep.
    Raises Malformed (empty, not JSON, not UTF-8) and Invalid (at most 20 faults, each with its JSON Pointer).
    """
    containers = raw.count(b"{") + raw.count(b"[")  # at most: in a text they count, too
    if containers > depth:
        _refuse_deep(raw, depth)
    try:
        tree = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _explained(raw, error) from None
    if not _plain(raw, tree, containers) and (faults := _text_faults(raw)):
        raise Invalid(*faults)
    return tree


def check(tree: Any, *, depth: int = DEPTH) -> None:
    """Ask of a value from a Python caller what ``parse`` asks of a text.

    Raises Invalid (at most 20 faults): also for keys that are not strings and types JSON does not have.
    """
    if faults := list(islice(_faults(tree, "", depth), FAULTS)):
        raise Invalid(*faults)


def clean_result(value: Any) -> bytes:
    """Encode what a handler returned, whatever it is.

    Takes everything msgspec encodes (structs, dataclasses, datetimes, UUIDs …). NUL and lone surrogates become U+FFFD,
    non-finite numbers null, integers beyond ±2^53 strings. Above 256 KiB the answer is
    ``{"truncated": true, "bytes": n, "preview": "the first 8 KiB of the JSON"}``.
    Raises TypeError: it cannot be encoded (unknown type, contains itself).
    """
    try:
        try:
            raw = msgspec.json.encode(value)
        except (UnicodeEncodeError, OverflowError):  # a lone surrogate, an integer beyond 64 bits
            raw = b""
        if not raw or b"\\u0000" in raw or _LONG_NUMBER in raw.translate(_DIGITS):
            raw = msgspec.json.encode(_cleaned(msgspec.to_builtins(value, str_keys=True)))
    except (RecursionError, ValueError, OverflowError) as error:
        raise TypeError(f"The result cannot be written as JSON: {error}") from None
    if len(raw) <= RESULT_BYTES:
        return raw
    preview = raw[:PREVIEW_BYTES].decode(errors="ignore")
    return msgspec.json.encode({"truncated": True, "bytes": len(raw), "preview": preview})


def clean_text(text: str, limit: int) -> str:
    """Make an error message or traceback storable.

    limit: bytes of UTF-8, 64 or more; a longer text is cut and ends with a mark that tells its size.
    """
    text = _UNSTORABLE.sub("\ufffd", text)
    raw = text.encode()
    if len(raw) <= limit:
        return text
    mark = f" … [cut, {len(raw)} bytes in all]"
    return raw[: limit - len(mark.encode())].decode(errors="ignore") + mark


def token(key: str | int) -> str:
    """One step of a JSON Pointer (RFC 6901), with its slash; unstorable characters and overlong keys are mended."""
    if isinstance(key, int):
        return f"/{key}"
    key = _UNSTORABLE.sub("\ufffd", key)
    key = key if len(key) <= KEY_LENGTH else key[:KEY_LENGTH] + "…"
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _refuse_deep(raw: bytes, depth: int) -> None:
    """Count the nesting on the bytes: no parser sees a text that could exhaust its stack."""
    unescaped = _ESCAPE.sub(b"", raw) if b"\\" in raw else raw
    level = 0
    for bracket in _QUOTED.sub(b"", unescaped.translate(None, _NOT_STRUCTURE)):
        level += 1 if bracket in b"[{" else -1
        if level > depth:
            raise Invalid(Fault("", f"must not be nested deeper than {depth} levels"))


def _plain(raw: bytes, tree: Any, most: int) -> bool:
    """Prove in a few scans that nothing is wrong; False only means that a closer look is needed.

    most: how many containers there may be; once as many are found, nobody looks for more.
    Without ``\\u`` there is no NUL and no surrogate. Every member has its ``"`` and ``:``, so when as many are in the
    text as keys are in the tree, none was written twice.
    """
    if b"\\u" in raw or _LONG_NUMBER in raw.translate(_DIGITS):
        return False
    keys = 0
    containers = [tree]
    for node in containers:  # grows while it is walked
        values = node
        if type(node) is dict:
            keys += len(node)
            if len(raw) > KEY_LENGTH and max(map(len, node), default=0) > KEY_LENGTH:
                return False
            values = node.values()
        elif type(node) is not list:
            break  # a text, a number: the tree itself
        if len(containers) < most:
            containers += [value for value in values if type(value) is dict or type(value) is list]
    return raw.count(b":") == keys or len(_MEMBER.findall(raw)) == keys


def _text_faults(raw: bytes) -> list[Fault]:
    """Read a text again, slowly, and keep what a fast reader drops. Raises ValueError: it is not JSON."""
    tree = json.loads(
        raw.decode(),
        object_pairs_hook=lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else _Repeated(pairs),
        parse_int=lambda text: int(text) if len(text) <= 17 else _Unfit(text),
        parse_float=lambda text: number if math.isfinite(number := float(text)) else _Unfit(text),
        parse_constant=_Unfit,
    )
    return list(islice(_faults(tree, "", DEPTH), FAULTS))


def _explained(raw: bytes, error: Exception) -> Invalid | Malformed:
    """Why the fast reader gave up: a value it cannot hold has a pointer, a broken text has not."""
    if not raw.strip():
        return Malformed("The body is empty; it must be JSON.")
    if isinstance(error, UnicodeDecodeError):
        return Malformed("The body is not UTF-8.")
    try:
        faults = _text_faults(raw)
    except UnicodeDecodeError:
        return Malformed("The body is not UTF-8.")
    except ValueError as broken:
        return Malformed(f"The body is not JSON: {broken}.")
    return Invalid(*faults) if faults else Malformed(f"The body is not JSON: {error}.")


def _faults(node: Any, pointer: str, levels: int) -> Iterator[Fault]:
    if node is None or isinstance(node, bool):
        return
    if isinstance(node, _Unfit):
        yield Fault(pointer, _number_detail(node))
    elif isinstance(node, str):
        if bad := _UNSTORABLE.search(node):
            yield Fault(pointer, _character_detail(bad[0]))
    elif isinstance(node, int):
        if abs(node) > SAFE_INTEGER:
            yield Fault(pointer, "must be an integer within ±2^53; send a bigger one as a string")
    elif isinstance(node, float):
        if not math.isfinite(node):
            yield Fault(pointer, "must be a finite number")
    elif not isinstance(node, (dict, list, tuple)):
        yield Fault(pointer, f"is of type {type(node).__name__}, which JSON does not have")
    elif levels <= 0:
        yield Fault(pointer, f"must not be nested deeper than {DEPTH} levels")
    elif isinstance(node, (dict, _Repeated)):
        yield from _member_faults(node, pointer, levels)
    else:
        for index, item in enumerate(node):
            yield from _faults(item, pointer + token(index), levels - 1)


def _member_faults(node: dict[Any, Any] | _Repeated, pointer: str, levels: int) -> Iterator[Fault]:
    seen: set[str] = set()
    for key, value in node.items() if isinstance(node, dict) else node:
        if not isinstance(key, str):
            yield Fault(pointer, f"has the key {key!r}; keys must be strings")
            continue
        here = pointer + token(key)
        if key in seen:
            yield Fault(here, "is given twice")
        elif len(key) > KEY_LENGTH:
            yield Fault(here, f"has a key longer than {KEY_LENGTH} characters")
        elif bad := _UNSTORABLE.search(key):
            yield Fault(here, "has a key that " + _character_detail(bad[0]))
        seen.add(key)
        yield from _faults(value, here, levels - 1)


def _number_detail(text: str) -> str:
    if text.lstrip("-").isdigit():
        return "must be an integer within ±2^53; send a bigger one as a string"
    return f"must be a finite number, not {text if len(text) <= 40 else text[:40] + '…'}"


def _character_detail(character: str) -> str:
    if character == "\x00":
        return "must not contain the character NUL (\\u0000)"
    return f"must not contain half of a surrogate pair (\\u{ord(character):04x})"


def _cleaned(node: Any) -> Any:
    if isinstance(node, str):
        return _UNSTORABLE.sub("\ufffd", node)
    if isinstance(node, dict):
        return {_UNSTORABLE.sub("\ufffd", str(key)): _cleaned(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_cleaned(item) for item in node]
    if isinstance(node, int) and not isinstance(node, bool) and abs(node) > SAFE_INTEGER:
        return str(node)
    return node
