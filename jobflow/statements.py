"""Loads the .sql and .lua files once, and fills the words of the life of a job into the former."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jobflow.lifecycle import WORDS

_PACKAGE = Path(__file__).parent


def _fill(text: str) -> str:
    for word, literal in WORDS.items():
        text = text.replace("{" + word + "}", literal)
    return text


SQL: dict[str, str] = {path.stem: _fill(path.read_text("utf-8")) for path in sorted((_PACKAGE / "sql").glob("*.sql"))}
LUA: dict[str, str] = {path.stem: path.read_text("utf-8") for path in sorted((_PACKAGE / "lua").glob("*.lua"))}


@cache
def together(*reads: tuple[str, int | None]) -> str:
    """One statement for several reads, so that they see one moment: a row with the rows of each as a JSON array.

    reads: names of statements, each with the value of its $1.
    """
    columns = []
    for name, value in reads:
        text = SQL[name].replace("$1", str(value))
        columns.append(f"(SELECT coalesce(json_agg(r), '[]') FROM ({text}\n) r) AS {name}")  # noqa: S608
    return f"SELECT {', '.join(columns)}"
