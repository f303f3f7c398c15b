"""Query parameters, strictly: unknown ones, repeated ones and ones that do not fit are all named in one 422."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from urllib.parse import parse_qsl

import msgspec

from jobflow.errors import Fault, Malformed
from jobflow.lifecycle import Moment, Status
from jobflow.listing import JobFilter
from jobflow.registry import QUEUE_NAME, TYPE_NAME
from jobflow.web.call import Call
from jobflow.web.problems import InvalidQuery

LIMIT, LIMIT_MAX = 50, 200
OFFSET_MAX = 10_000
TEXT_MAX = 200  # characters of a filter's value
PAYLOAD_FILTERS = 10
PAYLOAD_STEPS = 16
PAYLOAD = "payload."

FILTERS = frozenset({"type", "queue", "tag", "created_after", "created_before", "error"})
PAGING = frozenset({"limit", "offset", "cursor"})


class Query:
    """Reads parameters one by one and collects what is wrong; ``finish`` raises it all at once."""

    def __init__(self, raw: bytes, known: Collection[str], prefix: str | None = None) -> None:
        """``known``: names that may come; ``prefix``: any name that begins with it may, too."""
        self.faults: list[Fault] = []
        self.values: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except (UnicodeDecodeError, ValueError):
            raise Malformed(
                "The query cannot be read: it must be percent-encoded UTF-8 with at most 100 parameters."
            ) from None
        for name, value in pairs:
            self.values.setdefault(name, []).append(value)
        for name in self.values:
            if name not in known and not (prefix and name.startswith(prefix)):
                self.fault(name, f"is not a parameter here; these are: {', '.join(sorted(known)) or 'none'}")

    def fault(self, name: str, detail: str) -> None:
        self.faults.append(Fault(name.replace("\x00", "\ufffd")[:TEXT_MAX], detail))

    def finish(self) -> None:
        """Raises InvalidQuery."""
        if self.faults:
            raise InvalidQuery(*self.faults[:20])

    def one(self, name: str) -> str | None:
        values = self.values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            self.fault(name, "may come once only")
        return values[0]

    def text(self, name: str, pattern: str | None = None) -> str | None:
        value = self.one(name)
        if value is None:
            return None
        if not 1 <= len(value) <= TEXT_MAX or "\x00" in value:
            self.fault(name, f"must be 1 to {TEXT_MAX} characters, without NUL")
        elif pattern and not re.fullmatch(pattern, value):
            self.fault(name, f"cannot match anything: such a name is {pattern.strip('^$')}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.one(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            self.fault(name, f"must be a whole number from {low} to {high}")
            return default
        return int(value)

    def time(self, name: str) -> datetime | None:
        value = self.one(name)
        if value is None:
            return None
        try:
            return msgspec.convert(value, Moment)
        except msgspec.ValidationError:
            self.fault(name, "must be a time with a zone, such as 2030-01-31T12:00:00Z (write + as %2B)")
            return None


class Paging(msgspec.Struct, frozen=True):
    """Which part of a list: ``cursor`` as it came, or ``offset``."""

    limit: int = LIMIT
    offset: int = 0
    cursor: str | None = None


def no_query(request: Call) -> None:
    """Raises InvalidQuery: this path takes no parameters."""
    if request.query_bytes:
        Query(request.query_bytes, ()).finish()


def read_listing(request: Call, statuses: tuple[str, ...] = ()) -> tuple[JobFilter, Paging]:
    """The filters of a list and the part of it that is wanted.

    statuses: fixed by the path; then ``status`` is not a parameter.
    Raises InvalidQuery with every fault; Malformed.
    """
    own = frozenset[str]() if statuses else frozenset({"status"})
    query = Query(request.query_bytes, FILTERS | PAGING | own, PAYLOAD)
    if "cursor" in query.values and "offset" in query.values:
        query.fault("cursor", "may not come together with offset")
    wanted = JobFilter(
        statuses=statuses or _statuses(query),
        type=query.text("type", TYPE_NAME),
        queue=query.text("queue", QUEUE_NAME),
        tag=query.text("tag"),
        created_after=query.time("created_after"),
        created_before=query.time("created_before"),
        error=query.text("error"),
        payload=_payload(query),
    )
    paging = Paging(
        limit=query.integer("limit", LIMIT, 1, LIMIT_MAX),
        offset=query.integer("offset", 0, 0, OFFSET_MAX),
        cursor=query.one("cursor"),
    )
    query.finish()
    return wanted, paging


def _statuses(query: Query) -> tuple[str, ...]:
    given = query.values.get("status", [])
    if any(status not in list(Status) for status in given):
        query.fault("status", f"must be one of {', '.join(Status)}")
    return tuple(sorted(set(given)))


def _payload(query: Query) -> tuple[tuple[tuple[str, ...], str], ...]:
    found = []
    for name in query.values:
        if name.startswith(PAYLOAD):
            steps = tuple(name.removeprefix(PAYLOAD).split("."))
            if not all(steps) or len(steps) > PAYLOAD_STEPS or len(name) > TEXT_MAX or "\x00" in name:
                query.fault(name, f"must be payload. and 1 to {PAYLOAD_STEPS} names with dots between them")
            value = query.one(name) or ""
            if len(value) > TEXT_MAX or "\x00" in value:
                query.fault(name, f"must be at most {TEXT_MAX} characters, without NUL")
            found.append((steps, value))
    if len(found) > PAYLOAD_FILTERS:
        query.fault(PAYLOAD, f"at most {PAYLOAD_FILTERS} payload filters at once")
    return tuple(sorted(found))
