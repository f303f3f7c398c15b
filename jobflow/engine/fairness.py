"""How priorities share a batch while Redis is away: the same start-time fair queueing as in lua/pop.lua."""

from __future__ import annotations

import math
from collections.abc import Mapping


class Fairness:
    """Priority p has weight (10 - p)²; the lane with the smallest virtual finish time is served next."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._finish: dict[int, float] = {}

    def share(self, due: Mapping[int, int], want: int) -> dict[int, int]:
        """How many of ``due`` to take from each priority, ``want`` in all."""
        left = {priority: count for priority, count in due.items() if count > 0}
        self._finish = {p: self._finish.get(p, self._clock + 1 / (10 - p) ** 2) for p in left}
        taken = dict.fromkeys(left, 0)
        chunk = want if len(left) == 1 else math.ceil(want / 8)
        while want > 0 and left:
            best = min(left, key=lambda p: (self._finish[p], p))
            count = min(left[best], chunk, want)
            stride = 1 / (10 - best) ** 2
            self._clock = self._finish[best] - stride
            self._finish[best] += count * stride
            taken[best] += count
            want -= count
            left[best] -= count
            if left[best] == 0:
                del left[best]
        return taken
