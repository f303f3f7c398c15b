"""How long nothing was claimed because of a fault."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Sequence
from typing import NamedTuple

AFTERMATH = 10.0  # seconds after the beginning of a fault that are looked at, at least

CLAIM_TIMES = """
SELECT extract(epoch FROM at)::float8 AS at FROM oracle WHERE after = 'processing' AND before <> after ORDER BY 1
"""


class Blow(NamedTuple):
    """A fault that took place: seconds since 1970."""

    kind: str
    began: float
    ended: float


def pauses(blows: Sequence[Blow], claims: Sequence[float]) -> dict[str, float]:
    """For each kind the median of the longest span without any claim in or right after a fault of it, in seconds.

    claims: times in order. The median, since other faults fall into the same seconds.
    """
    found: dict[str, list[float]] = {}
    for kind, began, ended in blows:
        last = max(ended, began + AFTERMATH)
        if not claims or last > claims[-1]:
            continue  # there was nothing left to claim
        inside = claims[bisect.bisect_left(claims, began) : bisect.bisect_right(claims, last)]
        edges = [began, *inside, last]
        found.setdefault(kind, []).append(max(b - a for a, b in itertools.pairwise(edges)))
    return {kind: statistics.median(values) for kind, values in sorted(found.items())}
