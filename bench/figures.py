"""What is measured, as plain numbers, and the few sums that are done with them."""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Figures = dict[str, float]


class Spread(NamedTuple):
    least: float
    median: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """Least, median and most of at least one value."""
    ordered = sorted(values)
    return Spread(ordered[0], statistics.median(ordered), ordered[-1])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of an ascending, not empty sequence does not exceed."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def rate(jobs: int, first: float, last: float) -> float:
    """Jobs per second between two times in seconds. Raises SystemExit: all ended at once."""
    if last <= first:
        raise SystemExit(f"{jobs} jobs ended at once: they are too few to tell a rate.")
    return jobs / (last - first)


def verdict(held: bool | None) -> str:
    """What a table says beside a bar; None: there is no bar."""
    return "" if held is None else "held" if held else "MISSED"


def own_cpu() -> float:
    """Seconds of processor time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def steadiness() -> tuple[float, float]:
    """How fast a fixed piece of Python runs (ms) and how long a write to the disk takes (ms): both should not vary."""
    began = time.perf_counter()
    sum(n * n % 7 for n in range(400_000))
    spin = time.perf_counter() - began
    with tempfile.TemporaryFile() as file:
        began = time.perf_counter()
        for _ in range(20):
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
        sync = (time.perf_counter() - began) / 20
    return spin * 1e3, sync * 1e3
