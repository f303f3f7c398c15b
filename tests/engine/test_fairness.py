"""Lower priorities are slowed, never starved; nothing is taken that is not there."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from jobflow.broker import Broker
from jobflow.engine.fairness import Fairness
from tests.support.parts import Parts


def test_everything_is_taken_when_there_is_room() -> None:
    assert Fairness().share({0: 3, 5: 2, 9: 1, 7: 0}, 100) == {0: 3, 5: 2, 9: 1}
    assert Fairness().share({}, 10) == {}


def test_never_more_than_wanted_and_never_more_than_there_is() -> None:
    chance, fairness = random.Random(3), Fairness()
    for _ in range(500):
        due = {p: chance.randint(0, 40) for p in chance.sample(range(10), chance.randint(0, 10))}
        want = chance.randint(1, 60)
        taken = fairness.share(due, want)
        assert sum(taken.values()) == min(want, sum(due.values()))
        assert all(0 <= count <= due[p] for p, count in taken.items())


@pytest.mark.parametrize("want", [1, 8, 100])
def test_a_flood_leaves_each_priority_its_share(want: int) -> None:
    fairness, taken = Fairness(), Counter[int]()
    for _ in range(20_000 // want):
        taken.update(fairness.share({0: 1_000, 5: 1_000, 9: 1_000}, want))
    weights = {0: 100, 5: 25, 9: 1}
    for priority, weight in weights.items():
        share = taken[priority] / sum(taken.values())
        assert share == pytest.approx(weight / 126, rel=0.25), (priority, share)


def test_zero_runs_first_when_little_waits() -> None:
    fairness = Fairness()
    for _ in range(50):
        assert fairness.share({0: 1, 9: 1}, 1) == {0: 1, 9: 0}


def test_who_was_idle_gets_no_credit_for_it() -> None:
    fairness = Fairness()
    for _ in range(10_000):
        fairness.share({0: 10}, 10)
    taken = Counter[int]()
    for _ in range(101):
        taken.update(fairness.share({0: 10, 9: 10}, 1))
    assert taken[9] <= 2


async def test_it_shares_like_the_script(parts: Parts, broker: Broker) -> None:
    """lua/pop.lua does the same while Redis is there, but for the digits it keeps."""
    ids = {p: await parts.insert(200, priority=p) for p in (0, 3, 6)}
    parts.scheduler.fill("default", dict.fromkeys(ids, ""))
    await parts.scheduler.tick()
    place = {id: p for p, found in ids.items() for id in found}
    fairness, left = Fairness(), dict.fromkeys(ids, 200)
    ours, theirs = Counter[int](), Counter[int]()
    await parts.register()  # the clock: what was inserted is due by now
    for want in (1, 1, 7, 16, 30, 5, 40, 33):
        popped = Counter(place[id] for id in (await broker.pop("default", parts.lease.now(), want)).ids)
        assert sum(popped.values()) == want
        ours.update(fairness.share(left, want))
        theirs.update(popped)
        for p, count in popped.items():
            left[p] -= count
        assert all(abs(ours[p] - theirs[p]) <= 5 for p in ids), (ours, theirs)
    assert theirs[0] > theirs[3] > theirs[6] > 0
