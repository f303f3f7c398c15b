"""Points are off unless asked for, and what is asked for is checked. What a crash does at each is in tests/faults."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from jobflow import failpoints
from jobflow.errors import SettingsError

PACKAGE = Path(failpoints.__file__).parent
REACHED = re.compile(r"await failpoints\.reach\(\"([^\"]+)\"\)")


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_the_points_are_those_that_the_code_passes_each_in_one_place() -> None:
    texts = [path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))]
    found = Counter(point for text in texts for point in REACHED.findall(text))
    assert found == dict.fromkeys(failpoints.POINTS, 1)


def test_points_of_one_operation_stand_together() -> None:
    groups = [point.partition(".")[0] for point in failpoints.POINTS]
    assert sum(a != b for a, b in pairwise(groups)) + 1 == len(set(groups))


async def test_off_it_is_the_empty_coroutine_and_armed_it_is_not() -> None:
    assert failpoints.reach is failpoints._off
    await failpoints.reach("claim.popped")
    failpoints.arm("claim.popped=raise")
    assert failpoints.reach is not failpoints._off
    failpoints.arm("")
    assert failpoints.reach is failpoints._off


async def test_raise_at_every_passing_or_at_the_nth_only() -> None:
    failpoints.arm("claim.popped=raise, sweep.read=raise@2")
    for _ in range(2):
        with pytest.raises(failpoints.Reached, match=r"claim\.popped"):
            await failpoints.reach("claim.popped")
    await failpoints.reach("sweep.read")
    with pytest.raises(failpoints.Reached):
        await failpoints.reach("sweep.read")
    await failpoints.reach("sweep.read")
    await failpoints.reach("refill.read")


def test_what_is_asked_for() -> None:
    assert failpoints.parse("") == {}
    assert failpoints.parse(" claim.popped=kill ,, sweep.read=sleep:0.5@3") == {
        "claim.popped": ("kill", 0.0, 0),
        "sweep.read": ("sleep", 0.5, 3),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("claim.nowhere=kill", "claim.nowhere"),
        ("claim.popped", "''"),
        ("claim.popped=explode", "explode"),
        ("claim.popped=sleep", "sleep"),
        ("claim.popped=sleep:long", "sleep:long"),
        ("claim.popped=kill@0", "kill@0"),
        ("sweep.read=kill,claim.popped=kill@first", "kill@first"),
    ],
)
def test_what_is_unknown_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(named)) as caught:
        failpoints.arm(text)
    assert str(caught.value).startswith("JOBFLOW_FAILPOINTS is wrong: ")
    assert str(caught.value).endswith(".")
    assert failpoints.reach is failpoints._off
