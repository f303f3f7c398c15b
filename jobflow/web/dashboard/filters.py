"""How values look on a page: ages, durations, numbers, states, JSON. What they return is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import msgspec
from markupsafe import Markup

from jobflow.lifecycle import Cause, Status

SHOWN = 8 * 1024  # characters of a payload or result on a page; the rest is behind a link

_GAP = "\u00a0"  # between a number and its unit: never broken over two lines
_TIME = Markup('<time datetime="%s" title="%s">%s</time>')
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


class Look(NamedTuple):
    """``tone``: the class that colours it; never the only sign of a state."""

    tone: str
    icon: str  # the path of a 16 × 16 drawing
    means: str


LOOKS = {
    Status.WAITING: Look("off", "M8 2v12M4 2h8M4 14h8M5 3l6 10M11 3L5 13", "waits for other jobs"),
    Status.SCHEDULED: Look("wait", "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12M8 5v3l2 2", "waits for its time"),
    Status.PENDING: Look("ready", "M3 4h10M3 8h10M3 12h6", "ready to run"),
    Status.PROCESSING: Look("run", "M5 3l8 5-8 5z", "a worker runs it"),
    Status.FAILED: Look("warn", "M13 8a5 5 0 1 1-2-4M11 1v3H8", "failed, runs again later"),
    Status.COMPLETED: Look("ok", "M3 8l4 4 6-8", "done"),
    Status.DEAD_LETTER: Look("bad", "M4 4l8 8M12 4l-8 8", "failed for good"),
    Status.CANCELLED: Look("off", "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12M4 4l8 8", "stopped on purpose"),
}
# How a run that is no status of its job ended.
ENDINGS = {
    Cause.ERRORED: Status.FAILED,
    Cause.EXHAUSTED: Status.DEAD_LETTER,
    Cause.DISCARDED: Status.DEAD_LETTER,
    Cause.GIVEN_UP: Status.DEAD_LETTER,
    Cause.LOST: Status.FAILED,
    Cause.LOST_AGAIN: Status.FAILED,
    Cause.SNOOZED: Status.SCHEDULED,
    Cause.RELEASED: Status.PENDING,
    Cause.HANDED_BACK: Status.SCHEDULED,
}


def words(name: str) -> str:
    """``dead_letter`` as people say it."""
    return name.replace("_", " ")


@cache
def icon(path: str) -> Markup:
    return Markup('<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{}"/></svg>').format(path)


def look(state: str) -> Look:
    """How a status, or the cause that ended a run, is shown."""
    if state in list(Status):
        return LOOKS[Status(state)]
    return LOOKS[ENDINGS[Cause(state)]]


@cache
def badge(state: str) -> Markup:
    """A status, or how a run ended: icon and word in its colour."""
    tone, path, _ = look(state)
    return Markup('<span class="badge {}">{}{}</span>').format(tone, icon(path), words(state))


def duration(seconds: float | None) -> str:
    """Two units at most: ``0.3 s``, ``12 s``, ``3 m 20 s``, ``2 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(seconds, 0.0) * 1000:.0f}{_GAP}ms"
    if seconds < 10:
        return f"{seconds:.1f}{_GAP}s"
    parts, rest = [], int(seconds)
    for size, unit in _UNITS:
        if rest >= size:
            parts.append(f"{rest // size}{_GAP}{unit}")
            rest %= size
        elif parts:
            break
    return _GAP.join(parts[:2])


def age(moment: datetime, now: datetime | None = None) -> str:
    """``12 s ago``, ``in 3 m``: one unit, so that it is still true a moment later."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size), (1, "s"))
    count = int(abs(seconds) / size)
    if count == 0:
        return "now"
    said = f"{count}{_GAP}{unit}"
    return f"{said}{_GAP}ago" if seconds > 0 else f"in{_GAP}{said}"


def since(moment: datetime) -> str:
    """How long it goes on already."""
    return duration((datetime.now(UTC) - moment).total_seconds())


def past(moment: datetime) -> bool:
    return moment <= datetime.now(UTC)


def when(moment: datetime | None) -> Markup:
    """A time as its age; hovering shows the clock."""
    if moment is None:
        return Markup("–")
    exact = moment.astimezone(UTC)
    return _TIME % (f"{exact:%Y-%m-%dT%H:%M:%SZ}", clock(exact), age(exact))


def clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    """``12,345``; of small rates what is left of them: ``0.25``."""
    if 0 < value < 1:
        return f"{value:.2g}"
    return f"{value:,.1f}" if isinstance(value, float) and 0 < value < 100 else f"{value:,.0f}"


def short(value: int) -> str:
    """For where there is little room: ``999,999``, then ``1.2 M``."""
    return number(value) if value < 1_000_000 else f"{value / 1e6:,.{1 if value < 1e8 else 0}f}{_GAP}M"


def one_line(text: str, length: int = 160) -> str:
    """The first line, cut."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= length else line[: length - 1] + "…"


class Shown(NamedTuple):
    text: str
    cut: bool
    bytes: int


def pretty(raw: bytes | msgspec.Raw) -> Shown:
    """JSON with a line for each member, every number as it was written, cut to what a page can bear."""
    text = msgspec.json.format(bytes(raw), indent=2).decode()
    return Shown(text[:SHOWN], len(text) > SHOWN, len(bytes(raw)))


FILTERS = {
    "words": words,
    "badge": badge,
    "duration": duration,
    "age": age,
    "past": past,
    "when": when,
    "since": since,
    "clock": clock,
    "number": number,
    "short": short,
    "one_line": one_line,
    "pretty": pretty,
    "look": look,
    "icon": icon,
}
