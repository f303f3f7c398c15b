"""What a process believes about itself must end before Postgres stops believing it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobflow.engine import lease as module
from jobflow.engine.lease import PROOF, SLACK, TRUST, Lease
from tests.support.runs import JOB, WORKER

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "boottime", clock)
    return clock


@pytest.fixture
def lease(clock: Clock) -> Lease:
    lease = Lease(10.0)
    lease.take(WORKER)
    lease.confirm(1_000.0, 1_000.0, NOON)
    return lease


def test_nobody_is_trusted_before_the_first_answer(clock: Clock) -> None:
    lease = Lease(10.0)
    assert not lease.trusted()
    lease.confirm(1_000.0, 1_000.0, NOON)
    assert not lease.trusted(), "without a name"
    lease.take(WORKER)
    assert lease.trusted()


def test_trust_counts_from_before_the_beat_was_sent(lease: Lease, clock: Clock) -> None:
    lease.confirm(1_001.0, 1_004.0, NOON)
    clock.now = 1_001.0 + TRUST * 10 - 0.01
    assert lease.trusted()
    clock.now = 1_001.0 + TRUST * 10
    assert not lease.trusted()
    assert TRUST < 1


def test_a_broken_connection_asks_for_an_audit_before_the_next_claim(lease: Lease, clock: Clock) -> None:
    lease.audited = 1_000.0
    clock.now = 1_001.0
    lease.shake()
    assert not lease.trusted()
    lease.audited = 1_000.9  # asked before the connection broke
    assert not lease.trusted()
    lease.audited = 1_001.1
    assert lease.trusted()


def test_only_who_was_answered_for_two_periods_may_judge_others(lease: Lease, clock: Clock) -> None:
    clock.now += 2
    lease.confirm(clock.now, clock.now, NOON)
    clock.now = 1_000.0 + 2 * 10 / 5
    assert not lease.healthy()
    clock.now += 0.01
    assert lease.healthy()
    lease.doubt()
    assert not lease.healthy()
    lease.confirm(clock.now, clock.now, NOON)
    assert not lease.healthy(), "counted anew after a beat without an answer"
    clock.now += 3
    lease.confirm(clock.now, clock.now, NOON)
    clock.now += 1.01
    assert lease.healthy(), "a later beat does not start it again"
    clock.now += 4
    assert not lease.healthy(), "it stood still: whether Postgres did, too, the next beat will tell"


def test_identities_are_kept(lease: Lease) -> None:
    lease.take(JOB)
    assert (lease.worker, lease.identities) == (JOB, (WORKER, JOB))


def test_silence(lease: Lease, clock: Clock) -> None:
    clock.now = 1_007.0
    assert lease.silence() == 7.0


def seconds_at(lease: Lease, clock: Clock, at: float) -> float:
    """Seconds after noon that the lease believes Postgres' clock to show."""
    clock.now = at
    return (lease.now() + SLACK - NOON).total_seconds()


@pytest.fixture
def unsynced(clock: Clock) -> Lease:
    return Lease(10.0)


def test_the_clock_is_postgres_and_never_ahead_of_it(unsynced: Lease, clock: Clock) -> None:
    """A job that is popped too early is refused, and only the sweep finds it again."""
    unsynced.confirm(1_000.0, 1_002.0, NOON)  # it said noon at 1,002 at the latest
    assert seconds_at(unsynced, clock, 1_011.0) == 9.0
    assert timedelta(0) < SLACK


def test_a_quick_beat_sets_the_clock_better_and_a_slow_one_no_worse(unsynced: Lease, clock: Clock) -> None:
    unsynced.confirm(1_000.0, 1_002.0, NOON + timedelta(seconds=1))
    unsynced.confirm(1_003.0, 1_003.5, NOON + timedelta(seconds=3.25))
    assert seconds_at(unsynced, clock, 1_003.5) == 3.25
    unsynced.confirm(1_006.0, 1_010.0, NOON + timedelta(seconds=6))
    assert seconds_at(unsynced, clock, 1_010.0) == 9.75


def test_a_clock_that_was_set_is_followed_both_ways(unsynced: Lease, clock: Clock) -> None:
    unsynced.confirm(1_000.0, 1_000.5, NOON)
    unsynced.confirm(1_003.0, 1_003.5, NOON + timedelta(hours=1))
    assert seconds_at(unsynced, clock, 1_003.5) == 3_600
    unsynced.confirm(1_006.0, 1_006.5, NOON)
    assert 0 <= seconds_at(unsynced, clock, 1_006.5) <= 0.5


def test_what_postgres_has_told_is_due_at_once_and_for_a_second_only(unsynced: Lease, clock: Clock) -> None:
    """Or each new job would wait until the reckoning, which is a little behind, has come to it."""
    unsynced.confirm(1_000.0, 1_000.5, NOON)
    clock.now = 1_000.5
    told = NOON + timedelta(milliseconds=1)
    unsynced.tell(told)
    assert unsynced.now() == told
    unsynced.tell(NOON)
    assert unsynced.now() == told, "the latest counts"
    clock.now += 0.5
    assert unsynced.now() > told, "and the clock goes on"
    far = NOON + timedelta(hours=1)
    unsynced.tell(far)
    assert unsynced.now() == far
    clock.now += PROOF + 0.1
    assert unsynced.now() < far, "Postgres' clock may be set back"
    unsynced.tell(NOON)
    assert NOON < unsynced.now() < far
