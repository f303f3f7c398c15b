"""How long to wait before the next attempt: pure functions."""

from __future__ import annotations

import random
from collections.abc import Callable

Backoff = Callable[[int], float]  # the attempt that failed, from 1 → seconds

CAP = 3600.0  # seconds
JITTER = 0.1  # up to this share is added at random, so that jobs that failed together do not return together


def exponential(base: float = 2.0, cap: float = CAP) -> Backoff:
    """``base ** attempt`` seconds, at most ``cap``, plus up to 10 % at random.

    base: seconds after the first failure, and the factor from then on. Default 2.
    cap: seconds. Default 3600.
    """

    def backoff(attempt: int) -> float:
        # Beyond 64 doublings any base above 1 is over the cap; the bound keeps the power from overflowing.
        return min(base ** min(attempt, 64), cap) * (1 + random.random() * JITTER)  # noqa: S311  (not a secret)

    return backoff


default = exponential()
