"""While a drain runs at its peak: how long POSTs and pages take, how late the event loop is, how long the engine holds it."""

from __future__ import annotations

import json

from bench.figures import Figures, percentile
from bench.instance import instance
from bench.machine import Companion, Machine, module


def peak(machine_: Machine, jobs: int) -> Figures:
    """Milliseconds, of what was asked between the first and the last ending."""
    loop = machine_.folder / "loop.json"
    with instance(machine_, WORKER_CONCURRENCY=500, BENCH_LOOP=loop) as app:
        app.load(jobs)
        asking = Companion(*module("bench.pace"), "--port", app.app.port)
        try:
            figures = app.drain(jobs)
        finally:
            heard = asking.end()
    heard |= json.loads(loop.read_text())
    for name in ("posts", "pages", "lag", "steps"):
        during = sorted(s * 1e3 for at, s, *_ in heard[name] if figures["first"] <= at <= figures["last"])
        figures |= summary(name, during)
    busy = max(used for at, _, used in heard["steps"] if figures["first"] <= at <= figures["last"])
    figures["steps_busy"] = busy * 1e3
    return figures | {"client": heard["client"]}


def summary(name: str, milliseconds: list[float]) -> Figures:
    """milliseconds: ascending. Raises SystemExit: the drain was too short to see anything."""
    if not milliseconds:
        raise SystemExit(f"No {name} were seen while the drain ran: it needs more jobs.")
    p50, p99 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)
    return {
        f"{name}_p50": p50,
        f"{name}_p99": p99,
        f"{name}_most": milliseconds[-1],
        f"{name}_count": len(milliseconds),
    }
