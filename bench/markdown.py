"""The tables of a run as Markdown, for docs/performance.md."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from rich.table import Table

PATHS = {"--json", "--markdown", "--data"}  # options that say nothing about what was measured


def page(about: str, tables: Sequence[Table]) -> str:
    """about: the machine and its versions. The command and the date stand above the tables."""
    given = sys.argv[1:]
    told = [word for before, word in zip(["", *given], given, strict=False) if not {before, word} & PATHS]
    command = " ".join(["python -m bench", *told])
    parts = [f"{time.strftime('%Y-%m-%d', time.gmtime())}, `{command}`: {about}."]
    parts += ["\n".join(lines(each)) for each in tables]
    return "\n\n".join(parts) + "\n"


def lines(table: Table) -> Iterator[str]:
    cells = [list(column.cells) for column in table.columns]
    yield row([str(column.header) for column in table.columns])
    yield row(["---:" if column.justify == "right" else "---" for column in table.columns])
    for values in zip(*cells, strict=True):
        # What belongs to the line above is set in by blanks, which Markdown would drop.
        yield row([f"· {value.strip()}" if str(value).startswith(" ") else str(value) for value in values])


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
