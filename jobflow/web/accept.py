"""What a client would rather have: the little of RFC 9110 §12.5 and §13.1 that two endpoints need."""

from __future__ import annotations

import re

WAIT_MAX = 30  # seconds
_WAIT = re.compile(rb"(?:^|[,;])\s*wait\s*=\s*(\d{1,9})\s*(?:$|[,;])", re.IGNORECASE)
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def prefers(accept: bytes | None, wanted: tuple[str, ...], usual: str = "application/json") -> bool:
    """Whether one of ``wanted`` is asked for by name, and more than ``usual``.

    accept: the Accept header; without one the usual is fine. Wildcards speak for ``usual`` only, so curl's ``*/*`` and
    equal wishes get it.
    """
    if not accept or accept == b"*/*":
        return False
    ranges = _ranges(accept.decode("latin-1"))
    best = max((ranges[name] for name in wanted if name in ranges), default=0.0)
    wildcards = (usual, usual.partition("/")[0] + "/*", "*/*")
    return best > next((ranges[name] for name in wildcards if name in ranges), 0.0)


def matches(if_none_match: bytes | None, etag: str) -> bool:
    """Weak comparison, as If-None-Match wants it."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.decode("latin-1").split(",")]
    return "*" in tags or etag in tags


def _ranges(accept: str) -> dict[str, float]:
    ranges: dict[str, float] = {}
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        qualities = [float(match[1]) for p in parameters if (match := _QUALITY.fullmatch(p))]
        ranges[media] = max(ranges.get(media, 0.0), qualities[0] if qualities else 1.0)
    return ranges


def preferred_wait(prefer: bytes | None) -> int:
    """Seconds that ``Prefer: wait=n`` asks for (RFC 7240, section 4.3), at most WAIT_MAX; 0 without it.

    What cannot be read is ignored, as the RFC wants it.
    """
    found = _WAIT.search(prefer) if prefer is not None else None
    return min(int(found[1]), WAIT_MAX) if found else 0
