"""A form from a JSON Schema, and the payload that was typed into it. Members too rich for a field are typed as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobflow import payloads
from jobflow.errors import Fault, Invalid, Malformed
from jobflow.web.dashboard.forms import Form

PREFIX = "payload."
NUMBERS = {"integer": int, "number": float}


@dataclass(frozen=True)
class Field:
    """One member of a payload. ``kind``: text, number, checkbox, select or json."""

    name: str
    kind: str
    required: bool
    type: str = ""
    default: Any = None
    options: Sequence[Any] = ()
    low: Any = None
    high: Any = None
    help: str = ""

    @property
    def key(self) -> str:
        """The name of the form's field."""
        return PREFIX + self.name

    @property
    def pointer(self) -> str:
        return "/payload" + payloads.token(self.name)


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of an object; none for an object of any shape."""
    root = _resolved(schema, schema)
    required = root.get("required", ())
    return [
        _field(name, _resolved(member, schema), name in required) for name, member in root.get("properties", {}).items()
    ]


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return schema.get("$defs", {}).get(reference.rpartition("/")[2], {}) if reference else node


def _field(name: str, member: Mapping[str, Any], required: bool) -> Field:
    shapes = [shape for shape in member.get("anyOf", [member]) if shape.get("type") != "null"]
    shape = shapes[0] if len(shapes) == 1 else {}
    common: dict[str, Any] = {
        "name": name, "required": required, "default": member.get("default"), "help": member.get("description", ""),
    }  # fmt: skip
    kind = shape.get("type", "")
    if "enum" in shape:
        return Field(kind="select", options=shape["enum"], **common)
    if kind in NUMBERS:
        low, high = (shape.get(word) for word in ("minimum", "maximum"))
        return Field(kind="number", type=kind, low=low, high=high, **common)
    if kind == "boolean":
        return Field(kind="checkbox", **common)
    if kind == "string":
        return Field(kind="text", **common)
    return Field(kind="json", **common)


def read_payload(fields: Sequence[Field], form: Form) -> tuple[dict[str, Any], list[Fault]]:
    """The payload that was typed, and what could not be read of it. Empty fields that are not required are left out."""
    if not fields:
        return _read_json(form.text("payload") or "{}", "/payload", dict)
    payload: dict[str, Any] = {}
    faults: list[Fault] = []
    for field in fields:
        text = form.text(field.key)
        if field.kind == "checkbox":
            payload[field.name] = field.key in form
        elif field.kind == "select":
            chosen = [option for option in field.options if str(option) == text]
            payload |= {field.name: chosen[0]} if chosen else {}
        elif field.kind == "text":
            payload |= {field.name: text} if text or field.required else {}
        elif text.strip():
            value, wrong = _read_number(text, field) if field.kind == "number" else _read_json(text, field.pointer)
            faults += wrong
            payload[field.name] = value
        elif field.required:
            faults.append(Fault(field.pointer, "is missing"))
    return payload, faults


def _read_number(text: str, field: Field) -> tuple[Any, list[Fault]]:
    try:
        return NUMBERS[field.type](text.strip()), []
    except ValueError:
        what = "a whole number" if field.type == "integer" else "a number"
        return None, [Fault(field.pointer, f"must be {what}")]


def _read_json(text: str, pointer: str, kind: type = object) -> tuple[Any, list[Fault]]:
    try:
        value = payloads.parse(text.encode())
    except Malformed as error:
        return {}, [Fault(pointer, str(error).replace("The body", "This"))]
    except Invalid as error:
        return {}, [Fault(pointer + fault.pointer, fault.detail) for fault in error.faults]
    if not isinstance(value, kind):
        return {}, [Fault(pointer, "must be a JSON object, such as {}")]
    return value, []
