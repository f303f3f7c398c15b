"""``python -m tests.simulation --steps 1000000 --seed 1``: run the simulation, or replay what a seed has broken."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.guards import GUARDS
from tests.simulation.rules import Broken
from tests.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps in all (1,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--each", type=int, default=100_000, help="steps for each seed; the next follows (100,000)")
    parser.add_argument("--off", action="append", default=[], choices=GUARDS, help="take a guard out")
    options = parser.parse_args()
    left, seed = options.steps, options.seed
    while left > 0:
        world, began = World(seed, options.off), time.perf_counter()
        try:
            world.run(min(options.each, left))
        except Broken as error:
            print(error)  # noqa: T201
            return 1
        seconds, hours = time.perf_counter() - began, (world.loop.now - 1000) / 60
        print(  # noqa: T201
            f"seed {seed}: {world.loop.steps:,} steps in {seconds:.1f} s, {hours:.1f} simulated minutes, "
            f"{world.made} processes, {sum(world.happened.values())} misfortunes, {world.counts}",
            flush=True,
        )
        left -= options.each
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
