"""Whether the drain has become clearly slower: compared with the bare loop in the same run, so that any machine will do.

Two ratios. Processor time per job hardly depends on what else the machine does, so its bound is close; what only waits does not
show in it, so the rate has a bound, too, a wide one. docs/performance.md says how far noise was seen to reach.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bench.drains import bare, drain
from bench.figures import Figures, spread
from bench.machine import machine
from bench.report import PARTS

JOBS, PAIRS = 20_000, 3
MOST_CPU = 1.6  # times the bare loop's processor time per job, the median of the pairs
LEAST_RATE = 0.5  # of the bare loop's jobs per second


def add_command(commands: Any) -> None:
    parser = commands.add_parser("guard", help=__doc__.partition("\n")[0])
    parser.add_argument("--most-cpu", type=float, default=MOST_CPU, help=f"bound, times (default {MOST_CPU})")
    parser.add_argument("--least-rate", type=float, default=LEAST_RATE, help=f"bound, share (default {LEAST_RATE})")
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Exit status 1: a bound was passed."""
    pairs: list[tuple[Figures, Figures]] = []
    with machine(args.data) as machine_:
        for _ in range(PAIRS):
            pairs.append((bare(machine_, JOBS, slots=500), drain(machine_, JOBS)))
            print(f"pair {len(pairs)}: {tell(*pairs[-1])}", flush=True)
    sentences = losses(pairs, most_cpu=args.most_cpu, least_rate=args.least_rate)
    print(*(f"LOST: {sentence}" for sentence in sentences), sep="\n", end="\n" if sentences else "")
    if sentences:
        print(
            "The microseconds above show whose work it is; `python -m bench versus OTHER` compares with an older checkout."
        )
        sys.exit(1)
    print("held")


def cpu(figures: Figures) -> float:
    return sum(figures[part] for part in PARTS)


def tell(ceiling: Figures, own: Figures) -> str:
    names = ("Python", "Postgres", "Redis")
    used = "  ".join(
        f"{name} {own[part] * 1e3:.1f} / {ceiling[part] * 1e3:.1f}" for name, part in zip(names, PARTS, strict=True)
    )
    return (
        f"{own['rate']:,.0f} of {ceiling['rate']:,.0f} jobs/s: {own['rate'] / ceiling['rate']:.0%}   "
        f"µs of processor time per job, drain / bare loop: {used}: {cpu(own) / cpu(ceiling):.2f} times"
    )


def losses(pairs: list[tuple[Figures, Figures]], *, most_cpu: float, least_rate: float) -> list[str]:
    """Sentences about what is clearly worse. pairs: (bare loop, drain)."""
    times = spread(cpu(own) / cpu(ceiling) for ceiling, own in pairs).median
    share = spread(own["rate"] / ceiling["rate"] for ceiling, own in pairs).median
    sentences = []
    if times > most_cpu:
        sentences.append(
            f"a job of the drain costs {times:.2f} times the processor time of the bare loop, more than {most_cpu:g}."
        )
    if share < least_rate:
        sentences.append(f"the drain reaches {share:.0%} of the bare loop's rate, less than {least_rate:.0%}.")
    return sentences
