"""Loads the .sql and .lua files once, and fills the words of the life of a job into the former."""

from __future__ import annotations

from pathlib import Path

from jobflow.lifecycle import WORDS

_PACKAGE = Path(__file__).parent


def _fill(text: str) -> str:
    for word, literal in WORDS.items():
        text = text.replace("{" + word + "}", literal)
    return text


SQL: dict[str, str] = {path.stem: _fill(path.read_text("utf-8")) for path in sorted((_PACKAGE / "sql").glob("*.sql"))}
LUA: dict[str, str] = {path.stem: path.read_text("utf-8") for path in sorted((_PACKAGE / "lua").glob("*.lua"))}
