"""What the worker of an adapter in Python counts; ``tally.cjs`` is the same for those in JavaScript."""

from __future__ import annotations

import json
import time

from bench.figures import own_cpu

BULK = 1_000  # jobs in one call that stores them


class Tally:
    """Called once by each handler; says how it went when ``jobs`` have been."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._count = jobs, 0
        self._began = self._cpu = 0.0

    def __call__(self) -> None:
        self._count += 1
        if self._count == 1:
            self._began, self._cpu = time.perf_counter(), own_cpu()
        if self._count == self._jobs:
            rate = self._jobs / (time.perf_counter() - self._began)
            print(json.dumps({"rate": rate, "app_cpu": (own_cpu() - self._cpu) / self._jobs * 1e3}), flush=True)


def stored(jobs: int, began: float) -> None:
    """began: of ``time.perf_counter()``."""
    print(json.dumps({"rate": jobs / (time.perf_counter() - began)}), flush=True)
