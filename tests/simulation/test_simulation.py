"""The whole protocol under a virtual clock: nothing breaks, and everything breaks once the guard for it is taken out.

A million steps: ``python -m tests.simulation --steps 1000000 --seed 1``. A failure names its seed; the same command
with ``--seed`` replays it.
"""

from __future__ import annotations

import pytest

from tests.simulation.guards import GUARDS, REVEALED_BY
from tests.simulation.rules import Broken
from tests.simulation.world import MISFORTUNES, World

STEPS = 40_000  # for each seed
SEEDS = (1, 2)
TRIES = range(1, 9)  # seeds in which a missing guard has to show


@pytest.mark.parametrize("seed", SEEDS)
def test_r47_no_invariant_breaks(seed: int) -> None:
    world = World(seed)
    world.run(STEPS)
    # It was not quiet: things went wrong, and work was done all the same.
    assert len(world.happened) > len(MISFORTUNES) / 2
    assert world.counts["claims"] > 300
    assert world.counts["rescues"] > 10


def test_a_seed_repeats_itself() -> None:
    def story(seed: int) -> list[str]:
        world = World(seed)
        world.run(5_000)
        return [*world.trace, str(world.counts)]

    assert story(3) == story(3) != story(4)


@pytest.mark.parametrize("guard", GUARDS)
def test_r48_without_a_guard_an_invariant_breaks(guard: str) -> None:
    def breaks(seed: int) -> bool:
        world = World(seed, [guard], REVEALED_BY.get(guard, MISFORTUNES), storm=10)
        try:
            world.run(STEPS)
        except Broken as broken:
            if f"seed {seed}" not in str(broken):
                pytest.fail("the report does not name its seed")
            return True
        return False

    assert any(breaks(seed) for seed in TRIES)


def test_a_world_knows_only_guards_that_there_are() -> None:
    with pytest.raises(ValueError, match="there is no guard 'luck'"):
        World(1, ["luck"]).run(1)
