"""Strict JSON in, clean JSON out."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobflow.errors import Invalid, Malformed
from jobflow.payloads import DEPTH, PREVIEW_BYTES, RESULT_BYTES, check, clean_result, clean_text, parse


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("raw", "tree"),
    [
        (b"{}", {}),
        (b' {"a" : [1, 2.5, true, null, "\xc3\xa9"] }\r\n', {"a": [1, 2.5, True, None, "é"]}),
        (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}),
        (b'{"a":"looks like \\"a\\": twice","b":"http://x:80/"}', {"a": 'looks like "a": twice', "b": "http://x:80/"}),
        (b'{"a":"\\u00e9\\ud83d\\ude00\\\\u0000"}', {"a": "é😀\\u0000"}),
        (b'{"card":"4111111111111111"}', {"card": "4111111111111111"}),
        (b"[9007199254740992,-9007199254740992]", [2**53, -(2**53)]),
        (b"[1e308,-0.0,1e-400]", [1e308, -0.0, 0.0]),
        (b'{"' + b"k" * 255 + b'":1}', {"k" * 255: 1}),
        (b'{"a":"' + b"[" * 1000 + b'"}', {"a": "[" * 1000}),
        (b'{"a":"\\"' + b"[" * 1000 + b'"}', {"a": '"' + "[" * 1000}),
    ],
)
def test_good_json_is_read_as_it_is(raw: bytes, tree: Any) -> None:
    assert parse(raw) == tree


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" \n ",
        b"{",
        b'{"a":1',
        b'{"a"}',
        b"{'a':1}",
        b"[1,]",
        b"[01]",
        b"[.5]",
        b"tru",
        b"{} {}",
        b"// no\n{}",
        b'"\x01"',
        b'{"a":"\x00"}',
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":NaN',
    ],
)
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "pointers"),
    [
        (b'{"a":1,"a":2}', ["/a"]),
        (b'{"a" :1,"b":{"x":1,"y":2,"x":3}}', ["/b/x"]),
        (b'{"a" :1,"a":"x"}', ["/a"]),  # as many `":` as keys: one blank hides the second
        (b'{"\\u0061":1,"a":2}', ["/a"]),
        (b'{"a":[0,NaN]}', ["/a/1"]),
        (b'{"a":Infinity,"b":-Infinity}', ["/a", "/b"]),
        (b'{"a":1e400}', ["/a"]),
        (b'{"a":-1e400}', ["/a"]),
        (b'{"a":9007199254740993}', ["/a"]),
        (b'{"a":-9007199254740993}', ["/a"]),
        (b'{"a":18446744073709551616}', ["/a"]),
        (b'{"a":' + b"9" * 5000 + b"}", ["/a"]),
        (b'{"a":"x\\u0000y"}', ["/a"]),
        (b'{"a\\u0000":1}', ["/a\ufffd"]),
        (b'{"a":"\\ud800"}', ["/a"]),
        (b'{"a":["\\udc00\\ud800"]}', ["/a/0"]),
        (b'{"\\ud800":1}', ["/\ufffd"]),
        (b'{"a/b":{"c~d":1e999}}', ["/a~1b/c~0d"]),
        (b'{"' + b"k" * 256 + b'":1}', ["/" + "k" * 255 + "…"]),
        (b'[{"a":1,"a":1},NaN,"\\u0000"]', ["/0/a", "/1", "/2"]),
    ],
)
def test_json_that_would_not_survive_is_refused_with_its_place(raw: bytes, pointers: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse(raw)

    assert [fault.pointer for fault in refused.value.faults] == pointers


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("levels", [DEPTH + 1, 1000, 100_000])
def test_no_depth_exhausts_the_stack(opening: bytes, levels: int) -> None:
    with pytest.raises(Invalid, match="deeper than 64"):
        parse(opening * levels)


def test_the_deepest_allowed_nesting_is_read() -> None:
    parse(nested(DEPTH))
    parse(b"[" + b",".join([nested(DEPTH - 1)] * 50) + b"]")
    with pytest.raises(Invalid):
        parse(nested(DEPTH + 1))
    with pytest.raises(Invalid):
        parse(b'["\\"]",' + nested(DEPTH) + b"]")


def test_brackets_after_a_quote_inside_a_text_do_not_count() -> None:
    assert parse(b'["\\\\", "' + b"[" * 100 + b'"]') == ["\\", "[" * 100]


def test_faults_are_reported_together_up_to_twenty() -> None:
    with pytest.raises(Invalid) as refused:
        parse(b"[" + b",".join([b"NaN"] * 100) + b"]")

    assert len(refused.value.faults) == 20


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_storable_value_is_read_back(value: Any) -> None:
    for spelled in (json.dumps(value, ensure_ascii=False), json.dumps(value), json.dumps(value, indent=1)):
        assert parse(spelled.encode()) == value


fragments = st.sampled_from(
    [
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b'"',
            b"\\",
            b'"a"',
            b'"a":',
            b"1",
            b"-",
            b"e9",
            b"1e999",
            b"NaN",
            b"null",
        ),
        *(b"\\u0000", b"\\ud800", b"\\udc00", b"\xff", b"\xc3\xa9", b"9" * 17, b"\x00", b"[" * 70, b"]" * 70, b" "),
    ]
)


@given(st.binary(max_size=200) | st.lists(fragments, max_size=40).map(b"".join))
def test_whatever_bytes_come_nothing_else_happens(raw: bytes) -> None:
    try:
        tree = parse(raw)
    except Invalid as refused:
        msgspec.json.encode([tuple(fault) for fault in refused.faults])  # an answer can be made of it
    except Malformed:
        pass
    else:
        assert json.loads(msgspec.json.encode(tree)) == tree
        assert json.loads(raw) == tree
        check(tree)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": math.nan}, "/a"),
        ({"a": [1, math.inf]}, "/a/1"),
        ({"a": 2**53 + 1}, "/a"),
        ({"a": "\x00"}, "/a"),
        ({"a": "\udfff"}, "/a"),
        ({"a": {"k" * 256: 1}}, "/a/" + "k" * 255 + "…"),
        ({1: 2}, ""),
        ({"a": {1, 2}}, "/a"),
        ({"a": datetime(2030, 1, 1, tzinfo=UTC)}, "/a"),
        (json.loads(nested(DEPTH + 1)), "/0" * DEPTH),
    ],
)
def test_python_values_are_checked_likewise(value: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(value)

    assert refused.value.faults[0].pointer == pointer


def test_a_python_value_that_contains_itself_is_too_deep() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(Invalid, match="deeper"):
        check(ring)


def test_good_python_values_pass() -> None:
    check({"a": [1, 2.5, None, True, "é", {"b": []}], "c": 2**53})


class Point(msgspec.Struct):
    x: float


@dataclasses.dataclass
class Box:
    at: datetime


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        ({"size": 12_345}, {"size": 12_345}),
        (Point(1.5), {"x": 1.5}),
        (Box(datetime(2030, 1, 1, tzinfo=UTC)), {"at": "2030-01-01T00:00:00Z"}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (("a", {"b"}), ["a", ["b"]]),
        ({1: "a"}, {"1": "a"}),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
        ({"\x00": ["\udfff"]}, {"\ufffd": ["\ufffd"]}),
        ([math.nan, math.inf, -math.inf, Point(math.nan)], [None, None, None, {"x": None}]),
        ([2**53, 2**53 + 1, -(2**64), 10**30], [2**53, str(2**53 + 1), str(-(2**64)), str(10**30)]),
        ({"text": "1234567890123456", "flag": True}, {"text": "1234567890123456", "flag": True}),
    ],
)
def test_results_are_cleaned_not_refused(value: Any, written: Any) -> None:
    raw = clean_result(value)

    assert json.loads(raw) == written
    parse(raw) if written is not None else None


def test_a_large_result_is_cut_and_says_so() -> None:
    exact = "x" * (RESULT_BYTES - 2)
    assert json.loads(clean_result(exact)) == exact

    cut = json.loads(clean_result(exact + "x"))
    assert cut == {"truncated": True, "bytes": RESULT_BYTES + 1, "preview": '"' + "x" * (PREVIEW_BYTES - 1)}


def test_a_cut_never_splits_a_character() -> None:
    assert json.loads(clean_result("é" * RESULT_BYTES))["preview"].startswith('"éé')


def test_what_cannot_be_written_is_a_type_error() -> None:
    ring: list[Any] = []
    ring.append(ring)
    for value in (object(), {"a": object()}, ring, {"a": 1 + 2j}):
        with pytest.raises(TypeError):
            clean_result(value)


@given(
    st.recursive(
        st.text() | st.integers() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_result_made_of_json_types_can_be_read_back(value: Any) -> None:
    parse(clean_result(value))


def test_texts_are_cleaned_and_cut() -> None:
    assert clean_text("a\x00\ud800b", 100) == "a\ufffd\ufffdb"
    assert clean_text("x" * 100, 100) == "x" * 100
    cut = clean_text("é" * 100, 100)
    assert len(cut.encode()) <= 100
    assert cut.endswith(" … [cut, 200 bytes in all]")
    assert cut.startswith("éé")
