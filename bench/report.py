"""The figures as a table for people and as JSON for machines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from bench import growth
from bench.figures import Figures, spread, verdict
from bench.growth import Pairs
from bench.machine import Machine
from bench.scenarios import Line, Scenario

Rounds = Mapping[str, Sequence[Figures]]  # the rounds of each scenario
PARTS = ("app_cpu", "postgres_cpu", "redis_cpu")


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def bar_of(line: Line) -> str:
    bars = [f"≥ {short(line.at_least)}"] if line.at_least is not None else []
    bars += [f"≤ {short(line.at_most)}"] if line.at_most is not None else []
    bars += [f"≥ {line.least_share:.0%}"] if line.least_share is not None else []
    bars += [f"≤ {line.most_share:.0%}"] if line.most_share is not None else []
    return ", ".join(bars)


def shares(line: Line, own: Sequence[Figures], rounds: Rounds) -> list[float]:
    """The median share of each ceiling, round by round: both of a round saw the same machine."""
    measured = (rounds[name] for name in line.ceilings if rounds.get(name))
    return [spread(a[line.key] / b["rate"] for a, b in zip(own, each, strict=False)).median for each in measured]


def is_held(line: Line, own: Sequence[Figures], rounds: Rounds) -> bool | None:
    """Whether the median reaches the bar; None: there is no bar."""
    middle = spread(figures[line.key] for figures in own).median
    held = []
    if line.at_least is not None:
        held.append(middle >= line.at_least)
    if line.at_most is not None:
        held.append(middle <= line.at_most)
    if share := shares(line, own, rounds):
        held += [share[0] >= line.least_share] if line.least_share is not None else []
        held += [share[0] <= line.most_share] if line.most_share is not None else []
    return all(held) if held else None


def median(own: Sequence[Figures], key: str) -> float | None:
    return spread(figures[key] for figures in own).median if key in own[0] else None


def processor(own: Sequence[Figures], suffix: str) -> str:
    """Seconds for each 1,000 jobs."""
    parts = [median(own, key + suffix) for key in PARTS]
    return "+".join(f"{part:.3f}" if part is not None else "0" for part in parts) if any(parts) else ""


def table(wanted: Iterable[Scenario], rounds: Rounds) -> Table:
    made = Table(title="medians of all rounds")
    for name in ("measured", "median", "min to max", "", "bar", "", "share of*", "CPU s/1,000 jobs", "MB", "client"):
        made.add_column(name, justify="left" if name in ("measured", "") else "right")
    for scenario in wanted:
        own = rounds[scenario.name]
        for number, line in enumerate(scenario.lines):
            least, middle, most = spread(figures[line.key] for figures in own)
            suffix = line.key.removeprefix("rate")  # of what was measured beside this rate
            memory, client = median(own, "memory"), median(own, f"client{suffix}")
            made.add_row(
                line.title,
                short(middle),
                f"{short(least)} to {short(most)}",
                line.unit,
                bar_of(line),
                verdict(is_held(line, own, rounds)),
                " / ".join(f"{share:.0%}" for share in shares(line, own, rounds)),
                processor(own, suffix),
                f"{memory:.0f}" if memory and not number else "",
                f"{client:.0%}" if client is not None else "",
            )
    made.caption = (
        "* of the ceilings: bare loop with 500 at once / without bound, bare INSERT; of another system: of our drain. "
        "CPU: application + Postgres + Redis. MB: the application's memory at its highest. client: of one core."
    )
    return made


def capacity(rounds: Rounds) -> Table | None:
    """What each job costs: the numbers of the capacity model in docs/performance.md; None: nothing of it was measured."""
    if not rounds.keys() & {"drain", "bulk"}:
        return None
    made = Table("what a job costs", "", title="capacity")
    made.columns[1].justify = "right"
    if own := rounds.get("drain"):
        app, postgres, redis = (median(own, key) or 0.0 for key in PARTS)  # seconds for each 1,000 jobs
        for name, seconds in (("application", app), ("Postgres", postgres), ("Redis", redis)):
            made.add_row(f"processor time of {name}", f"{seconds * 1000:.1f} µs")
        cores = os.cpu_count() or 1
        ends = {
            "the application's one core": app,
            "Redis' one core": redis,
            f"all {cores} cores together": (app + postgres + redis) / cores,
        }
        for name, seconds in ends.items():
            made.add_row(f"would be enough for: {name}", f"{short(1000 / max(seconds, 1e-6))} jobs/s")
        made.add_row("is full first", max(ends, key=lambda name: ends[name]))
        for key, title in (("wal", "log (WAL)"), ("table", "table, once completed"), ("index", "its indexes")):
            made.add_row(f"bytes of {title}", short(median(own, key) or 0.0))
    if own := rounds.get("bulk"):
        made.add_row("bytes in Redis, while it waits in a lane", short(median(own, "redis_bytes") or 0.0))
    return made


def growth_table(measured: Sequence[Pairs]) -> Table:
    made = Table(
        "full instance", "measured", "empty", "full", "full / empty", "range", "bar", "", title="pairs A B A B"
    )
    for pairs in measured:
        for name in pairs.empty:
            key = "p50" if name == "idle" else "rate"
            empty, full = (short(spread(f[key] for f in half[name]).median) for half in (pairs.empty, pairs.full))
            least, middle, most = spread(pairs.ratios(name))
            held = verdict(middle >= growth.BAR)
            bar = f"≥ {growth.BAR:.2f}"
            made.add_row(pairs.title, name, empty, full, f"{middle:.2f}", f"{least:.2f} to {most:.2f}", bar, held)
        for name, most in growth.MOST.items():
            title = "memory of the process, MB" if name == "memory" else "memory of Redis, MB"
            made.add_row(
                pairs.title,
                title,
                "",
                short(pairs.held[name]),
                "",
                "",
                f"≤ {most:.0f}",
                verdict(pairs.held[name] <= most),
            )
    made.caption = "jobs/s; idle: ms, p50. Ratios: 1.0 is as good as empty, more is better."
    return made


def document(
    machine_: Machine, wanted: Sequence[Scenario], rounds: Rounds, measured: Sequence[Pairs], steady: Sequence[Figures]
) -> dict[str, Any]:
    """Everything that was measured, for ``--json``. Units as in the table; ``*_cpu`` are seconds for each 1,000 jobs."""
    scenarios = {}
    for scenario in wanted:
        own = rounds.get(scenario.name)
        if not own:  # the run was cut short
            continue
        scenarios[scenario.name] = {
            "jobs": scenario.jobs,
            "median": {key: spread(figures[key] for figures in own).median for key in own[0]},
            "bars": {line.title.strip(): is_held(line, own, rounds) for line in scenario.lines if bar_of(line)},
            "rounds": list(own),
        }
    pairs = {
        each.title: {
            "ratios": {name: each.ratios(name) for name in each.empty},
            "empty": each.empty,
            "full": each.full,
            "held": each.held,
        }
        for each in measured
    }
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": machine_.versions(),
        "cores": os.cpu_count(),
        "steadiness": list(steady),
        "scenarios": scenarios,
        "pairs": pairs,
    }
