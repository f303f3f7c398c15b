"""Text for a terminal: tables, colours by status, and nothing that could steer the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from jobflow.lifecycle import Status

COLOURS = {
    Status.WAITING: "bright_black",
    Status.SCHEDULED: "cyan",
    Status.PENDING: "blue",
    Status.PROCESSING: "yellow",
    Status.FAILED: "magenta",
    Status.COMPLETED: "green",
    Status.DEAD_LETTER: "red",
    Status.CANCELLED: "bright_black",
}
GAP = "  "


def show(text: str) -> None:
    """Print to standard output, in colour where a terminal is and NO_COLOR does not forbid it."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def show_json(value: Any) -> None:
    """One JSON document for a script."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def clean(value: Any) -> str:
    """One line without control characters: what people put into a job must not steer our terminal."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def clean_block(text: str) -> str:
    """Lines without control characters, their indentation kept, without empty ones."""
    lines = (line for line in text.splitlines() if line.strip())
    return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + clean(line) for line in lines)


def status(word: str, width: int = 0) -> str:
    """A status in its colour, padded to ``width``."""
    return click.style(clean(word).ljust(width), fg=COLOURS.get(word))  # type: ignore[call-overload]


def ago(time: str | None, now: datetime) -> str:
    """How long ago, or in how long, in the largest unit that fits."""
    if time is None:
        return ""
    seconds = (now - datetime.fromisoformat(time)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if abs(seconds) >= size or unit == "s":
            amount = f"{abs(seconds) / size:.0f} {unit}"
            return f"in {amount}" if seconds <= -1 else f"{amount} ago"
    raise AssertionError


def now() -> datetime:
    return datetime.now(UTC)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], coloured: int) -> str:
    """Columns as wide as they must be; on a terminal the last one is cut to what is left of the line.

    coloured: the column that holds statuses.
    """
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    room = shutil.get_terminal_size().columns - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    lines = [
        click.style(GAP.join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip(), bold=True)
    ]
    for row in rows:
        *cells, last = row
        if sys.stdout.isatty() and len(last) > room > 0:
            last = last[: room - 1] + "…"
        padded = [
            status(cell, width) if n == coloured else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths[:-1], strict=True))
        ]
        lines.append(GAP.join([*padded, last]).rstrip())
    return "\n".join(lines)
