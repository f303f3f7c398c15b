"""Idempotency-Key: the header in both spellings, and the fingerprint of a request."""

from __future__ import annotations

from typing import Any

import pytest

from jobflow.errors import Malformed
from jobflow.web.idempotency import Fingerprint, read_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"unique-key-123", "unique-key-123"),
        (b'"unique-key-123"', "unique-key-123"),
        (b' "k" ', "k"),
        (b'"a\\"b\\\\c"', 'a"b\\c'),
        (b'a"b', 'a"b'),
        (b"~", "~"),
        (b"x" * 255, "x" * 255),
        (b'"' + b"x" * 255 + b'"', "x" * 255),
    ],
)
def test_quoted_and_bare_are_the_same_key(header: bytes, key: str) -> None:
    assert read_key({b"idempotency-key": header}) == key


def test_no_header_no_key() -> None:
    assert read_key({}) is None


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b'""',
        b'"',
        b'"a',
        b'"a"b"',
        b'"a" ;x',
        b'"a\\b"',
        b"a b",
        b'"a b"',
        b"x" * 256,
        b"a\tb",
        b"a\x7f",
        b"\xc3\xa9",
        b"a, b",
    ],
)
def test_anything_else_is_malformed(header: bytes) -> None:
    with pytest.raises(Malformed, match="Idempotency-Key"):
        read_key({b"idempotency-key": header})


def fingerprint(*trees: Any, method: str = "POST", path: str = "/jobs") -> bytes:
    hashed = Fingerprint(method, path)
    hashed.add(trees)
    return hashed.digest()


def test_the_fingerprint_is_of_the_meaning_not_of_the_spelling() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


def test_everything_that_matters_changes_it() -> None:
    prints = [
        fingerprint({"a": 1}),
        fingerprint({"a": 2}),
        fingerprint({"a": "1"}),
        fingerprint({"a": [1, 2]}),
        fingerprint({"a": [2, 1]}),
        fingerprint({"a": 1}, path="/jobs/bulk"),
        fingerprint({"a": 1}, method="PUT"),
        fingerprint({"a": 1}, {"a": 1}),
        fingerprint(),
    ]

    assert len(set(prints)) == len(prints)
