"""Whether it stays as fast with millions of rows: two instances ready side by side, one of them full, measured in turns.

A B A B: both of a pair saw the same machine, so the ratio of a pair counts, and of all pairs their median.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from bench import rows
from bench.figures import Figures
from bench.instance import Instance, instance
from bench.machine import Machine
from bench.posts import BULK

BAR = 0.90
MOST = {"memory": 200.0, "redis_memory": 50.0}  # MB, with everything that waits


class State(NamedTuple):
    """What the second instance holds that the first does not. ``runs``: which measurements make sense."""

    title: str
    fill: Callable[[str], None] | None
    runs: tuple[str, ...]
    analyze: bool = False


def states(count: int) -> dict[str, State]:
    """count: how many rows "1,000,000" means here."""
    everything = ("bulk", "single", "drain", "steady", "idle")
    return {
        "finished": State(f"{count:,} finished", partial(rows.add_finished, rows=count), everything),
        "finished10": State(f"{10 * count:,} finished", partial(rows.add_finished, rows=10 * count), everything),
        "due": State(f"{count:,} waiting, due", partial(rows.add_waiting, rows=count, later=False), ("drain",)),
        "later": State(
            f"{count:,} waiting, for tomorrow", partial(rows.add_waiting, rows=count, later=True), everything
        ),
        "analyzed": State("ANALYZE right after the bulk load", None, ("drain",), analyze=True),
    }


class Pairs(NamedTuple):
    """Rounds of the empty and of the full instance, by measurement, and what the full one holds in memory."""

    title: str
    empty: dict[str, list[Figures]]
    full: dict[str, list[Figures]]
    held: Figures

    def ratios(self, name: str) -> list[float]:
        """How the full one does, 1.0 being as well as the empty one, pair by pair."""
        better = -1 if name == "idle" else 1  # milliseconds, not jobs per second
        key = "p50" if name == "idle" else "rate"
        pairs = zip(self.empty[name], self.full[name], strict=True)
        return [(full[key] / empty[key]) ** better for empty, full in pairs]


def measure(
    machine_: Machine, state: State, jobs: int, pairs: int, say: Callable[[str], None], after: Callable[[str], None]
) -> Pairs:
    """after: is given the url of the full database in the end, when nothing runs on it any more."""
    with ExitStack() as stack:
        full = stack.enter_context(
            instance(machine_, valkey=machine_.second_valkey(), rows=state.fill, WORKER_CONCURRENCY=500)
        )
        empty = stack.enter_context(instance(machine_, WORKER_CONCURRENCY=500))
        measured = Pairs(state.title, {}, {}, {})
        for number in range(pairs + 1):
            both = zip(run(empty, state, jobs), run(full, state, jobs, analyze=state.analyze), strict=True)
            for (name, without), (_, with_them) in both:
                if number:  # the first pair is for warming up
                    measured.empty.setdefault(name, []).append(without)
                    measured.full.setdefault(name, []).append(with_them)
            empty.clear()
            if number:
                shown = ", ".join(f"{name} {measured.ratios(name)[-1]:.2f}" for name in measured.empty)
                say(f"{state.title}: pair {number}: {shown}")
        measured.held["memory"] = full.app.peak_memory()
        measured.held["redis_memory"] = full.redis_memory()["redis_memory"]
        full.app.stop()
        after(full.url)
        return measured


def run(app: Instance, state: State, jobs: int, *, analyze: bool = False) -> Iterator[tuple[str, Figures]]:
    """Every measurement that makes sense, one at each step: what the POSTs stored is what the drain runs."""
    app.hold()
    if "bulk" in state.runs:
        many, some = max(jobs // BULK, 4) * BULK, max(jobs // 6, 300)
        app.database.execute("VACUUM jobs")
        yield "bulk", app.post(jobs=many, connections=4, bulk=BULK)
        yield "single", app.post(jobs=some, connections=64)
        yield "drain", app.drain(many + some)
        app.release()
        yield "steady", app.posted(jobs=max(jobs // 3, 400), connections=4, bulk=100)
        yield "idle", app.latency(100)
    else:
        app.load(jobs, analyze=analyze)
        yield "drain", app.drain(jobs)
