"""What a check found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """``advice``: what to do about it; empty when there is nothing to do."""

    name: str
    level: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, "ok", text)


def warn(name: str, text: str, advice: str) -> Finding:
    return Finding(name, "warn", text, advice)


def fail(name: str, text: str, advice: str) -> Finding:
    return Finding(name, "fail", text, advice)
