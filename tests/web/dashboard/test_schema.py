"""A form from a schema, and the payload out of the form."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from jobflow.errors import Fault
from jobflow.web.dashboard.forms import Form
from jobflow.web.dashboard.schema import fields_of, read_payload


class Inner(msgspec.Struct):
    x: int


class Many(msgspec.Struct):
    text: str
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]
    ratio: float
    on: bool
    size: Literal["s", "m"]
    maybe: int | None = None
    either: int | str = 3
    names: list[str] = []
    inner: Inner | None = None
    flag: bool = True


FIELDS = fields_of(msgspec.json.schema(Many))


def test_each_member_gets_the_field_that_suits_it() -> None:
    kinds = {field.name: (field.kind, field.required) for field in FIELDS}
    assert kinds == {
        "text": ("text", True), "count": ("number", True), "ratio": ("number", True), "on": ("checkbox", True),
        "size": ("select", True), "maybe": ("number", False), "either": ("json", False), "names": ("json", False),
        "inner": ("json", False), "flag": ("checkbox", False),
    }  # fmt: skip
    count = next(field for field in FIELDS if field.name == "count")
    assert (count.low, count.high, count.key, count.pointer) == (1, 9, "payload.count", "/payload/count")


def test_an_object_of_any_shape_has_no_fields() -> None:
    assert fields_of({"type": "object"}) == []
    assert read_payload([], Form([])) == ({}, [])
    assert read_payload([], Form([("payload", '{"a": [1]}')])) == ({"a": [1]}, [])


def test_what_is_typed_becomes_the_payload() -> None:
    typed = {
        "text": "", "count": " 3 ", "ratio": "0.5", "size": "m", "maybe": "", "names": '["a"]', "inner": '{"x": 1}', "flag": "true",
    }  # fmt: skip
    form = Form([(f"payload.{name}", value) for name, value in typed.items()])
    payload, faults = read_payload(FIELDS, form)
    assert payload == {
        "text": "", "count": 3, "ratio": 0.5, "on": False, "size": "m", "names": ["a"], "inner": {"x": 1}, "flag": True,
    }  # fmt: skip
    assert faults == []


def test_every_field_that_cannot_be_read_is_named() -> None:
    form = Form([("payload.count", "two"), ("payload.names", "[1"), ("payload.inner", '{"a": 1, "a": 2}')])
    _, faults = read_payload(FIELDS, form)
    assert [fault.pointer for fault in faults] == [
        "/payload/count",
        "/payload/ratio",
        "/payload/names",
        "/payload/inner/a",
    ]
    assert faults[0] == Fault("/payload/count", "must be a whole number")


def test_a_payload_is_an_object() -> None:
    for text in ("[1]", "1", "null"):
        assert read_payload([], Form([("payload", text)]))[1] == [
            Fault("/payload", "must be a JSON object, such as {}")
        ]
    assert "not JSON" in read_payload([], Form([("payload", "{")]))[1][0].detail
