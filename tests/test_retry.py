from __future__ import annotations

import pytest

from jobflow import retry


@pytest.mark.parametrize("attempt", range(1, 12))
def test_the_default_is_a_power_of_two_plus_at_most_a_tenth(attempt: int) -> None:
    delays = [retry.default(attempt) for _ in range(200)]
    assert 2**attempt <= min(delays)
    assert max(delays) <= 2**attempt * 1.1


@pytest.mark.parametrize("attempt", [12, 20, 100, 10**6])
def test_it_never_waits_longer_than_the_cap_and_a_tenth(attempt: int) -> None:
    assert 3600 <= retry.default(attempt) <= 3960


def test_jobs_that_failed_together_do_not_return_together() -> None:
    assert len({retry.default(5) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("base", "cap", "attempt", "expected"), [(3.0, 3600.0, 2, 9.0), (10.0, 50.0, 3, 50.0), (1.0, 9.0, 500, 1.0)]
)
def test_base_and_cap_can_be_chosen(base: float, cap: float, attempt: int, expected: float) -> None:
    assert expected <= retry.exponential(base, cap)(attempt) <= expected * 1.1
