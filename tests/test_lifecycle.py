"""The table of moves is small, so it is tested whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobflow import lifecycle
from jobflow.lifecycle import FINAL, LIVE, MOVES, OPEN, WORDS, Cause, Change, Failure, Run, Status, sources
from tests.support.runs import make_run

BOOM = Failure("RuntimeError", "boom")

# Written a second time on purpose, by state and by hand: a change of the table has to be made twice.
LEGAL = {
    "waiting": {"cancelled": "cancelled", "expired": "cancelled", "replaced": "cancelled", "discarded": "dead_letter"},
    "pending": {
        "claimed": "processing",
        "cancelled": "cancelled",
        "expired": "cancelled",
        "replaced": "cancelled",
        "discarded": "dead_letter",
    },
    "scheduled": {
        "claimed": "processing",
        "retried": "pending",
        "cancelled": "cancelled",
        "expired": "cancelled",
        "replaced": "cancelled",
        "discarded": "dead_letter",
    },
    "failed": {
        "claimed": "processing",
        "retried": "pending",
        "cancelled": "cancelled",
        "expired": "cancelled",
        "replaced": "cancelled",
        "discarded": "dead_letter",
    },
    "processing": {
        "completed": "completed",
        "errored": "failed",
        "exhausted": "dead_letter",
        "snoozed": "scheduled",
        "released": "pending",
        "handed_back": "scheduled",
        "lost": "pending",
        "lost_again": "scheduled",
        "given_up": "dead_letter",
        "cancelled": "cancelled",
        "discarded": "dead_letter",
    },
    "completed": {},
    "dead_letter": {"retried": "pending"},
    "cancelled": {"retried": "pending", "discarded": "dead_letter"},
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("cause", Cause)
def test_each_cause_moves_each_state_as_written_or_not_at_all(status: Status, cause: Cause) -> None:
    if cause in LEGAL[status]:
        assert MOVES[status][cause] == LEGAL[status][cause]
    else:
        with pytest.raises(KeyError):
            MOVES[status][cause]


def test_every_cause_is_used() -> None:
    assert {cause for moves in MOVES.values() for cause in moves} == set(Cause)


@pytest.mark.parametrize("status", Status)
def test_every_state_reaches_a_final_one(status: Status) -> None:
    reached, frontier = {status}, [status]
    while frontier:
        following = set(MOVES[frontier.pop()].values()) - reached
        reached |= following
        frontier += following
    assert reached & set(FINAL)


def test_only_a_claim_starts_a_run_and_only_a_person_leaves_a_final_state() -> None:
    assert {c for moves in MOVES.values() for c, after in moves.items() if after is Status.PROCESSING} == {
        Cause.CLAIMED
    }
    left = {cause for status in FINAL for cause, after in MOVES[status].items() if after not in FINAL}
    assert left == {Cause.RETRIED}


def test_no_group_of_states_is_written_twice() -> None:
    assert set(OPEN) == {Status.PENDING, Status.SCHEDULED, Status.FAILED}
    assert set(FINAL) | set(LIVE) == set(Status)
    assert not set(FINAL) & set(LIVE)
    assert sources(Cause.RETRIED) == (Status.SCHEDULED, Status.FAILED, Status.DEAD_LETTER, Status.CANCELLED)


def test_words_are_quoted_literals_of_states() -> None:
    for status in Status:
        assert WORDS[status] == f"'{status}'"
    assert set(WORDS["open"].split(", ")) == {"'scheduled'", "'pending'", "'failed'"}
    states = {f"'{status}'" for status in Status}
    causes = {f"'{cause}'" for cause in Cause}
    for word, text in WORDS.items():
        assert set(text.split(", ")) <= (causes if word == "losses" else states), word
    for word in ("retryable", "cancellable", "discardable", "expirable"):
        assert "'processing'" not in WORDS[word]
        assert "'completed'" not in WORDS[word]


def test_a_result_completes_the_job() -> None:
    run = make_run(attempt=3, rescues=1)
    change = lifecycle.complete(run, b"1")
    assert (change.cause, change.after, change.result) == (Cause.COMPLETED, Status.COMPLETED, b"1")
    assert (change.attempt, change.rescues, change.delay, change.run) == (3, 1, None, run)


def test_a_failure_is_retried_while_attempts_are_left() -> None:
    change = lifecycle.fail(make_run(attempt=4, max_attempts=5), BOOM, 8.0)
    assert (change.cause, change.after, change.delay) == (Cause.ERRORED, Status.FAILED, 8.0)
    assert (change.attempt, change.failure, change.recorded) == (4, BOOM, True)


@pytest.mark.parametrize("attempt", [5, 6])
def test_the_last_failure_is_the_end(attempt: int) -> None:
    change = lifecycle.fail(make_run(attempt=attempt, max_attempts=5), BOOM, 8.0)
    assert (change.cause, change.after, change.delay) == (Cause.EXHAUSTED, Status.DEAD_LETTER, None)
    assert (change.attempt, change.failure) == (attempt, BOOM)


def test_discard_and_cancel_are_final_at_once() -> None:
    change = lifecycle.discard(make_run(), BOOM)
    assert (change.cause, change.after, change.failure) == (Cause.DISCARDED, Status.DEAD_LETTER, BOOM)
    change = lifecycle.cancel(make_run(), "not wanted")
    assert (change.cause, change.after, change.reason) == (Cause.CANCELLED, Status.CANCELLED, "not wanted")


def test_a_snooze_gives_the_attempt_back() -> None:
    change = lifecycle.snooze(make_run(attempt=2), 60.0)
    assert (change.cause, change.after, change.attempt) == (Cause.SNOOZED, Status.SCHEDULED, 1)
    assert (change.delay, change.recorded) == (60.0, True)


@pytest.mark.parametrize(
    ("decide", "cause", "after", "delay", "recorded"),
    [
        (lifecycle.release, Cause.RELEASED, Status.PENDING, None, True),
        (lifecycle.unstart, Cause.RELEASED, Status.PENDING, None, False),
        (lifecycle.hand_back, Cause.HANDED_BACK, Status.SCHEDULED, lifecycle.HAND_BACK_WAIT, False),
    ],
)
def test_a_run_handed_back_costs_no_attempt(
    decide: Callable[[Run], Change], cause: Cause, after: Status, delay: float | None, recorded: bool
) -> None:
    change = decide(make_run(attempt=2))
    assert (change.cause, change.after, change.attempt) == (cause, after, 1)
    assert (change.delay, change.recorded) == (delay, recorded)


@pytest.mark.parametrize(
    ("before", "cause", "after", "delay"),
    [
        (0, Cause.LOST, Status.PENDING, 0.0),
        (1, Cause.LOST_AGAIN, Status.SCHEDULED, lifecycle.RESCUE_WAIT),
        (2, Cause.GIVEN_UP, Status.DEAD_LETTER, None),
    ],
)
def test_the_third_lost_worker_is_the_end(before: int, cause: Cause, after: Status, delay: float | None) -> None:
    change = lifecycle.lose(make_run(attempt=2, rescues=before))
    assert (change.cause, change.after, change.delay) == (cause, after, delay)
    assert (change.attempt, change.rescues) == (1, before + 1)
    assert change.failure is not None
    assert change.failure.type == "WorkerLost"


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("action", [Cause.RETRIED, Cause.CANCELLED, Cause.DISCARDED])
def test_a_refusal_names_the_state_and_a_way_out(status: Status, action: Cause) -> None:
    conflict = lifecycle.refusal(status, action)
    assert str(conflict).startswith(f"The job is {status}: ")
    assert conflict.extra == {"current_status": status}
    if status not in (Status.COMPLETED, Status.PROCESSING):
        for other in sources(action):
            assert (other in str(conflict).partition(": ")[2]) == (other is not Status.PROCESSING)


@pytest.mark.parametrize(
    ("times", "status"),
    [({}, Status.PENDING), ({"delay": 1.0}, Status.SCHEDULED), ({"delay": 0.0}, Status.PENDING)],
)
def test_a_new_job_is_scheduled_when_it_has_a_time(times: dict[str, Any], status: Status) -> None:
    run = make_run()
    job = lifecycle.NewJob(
        id=run.id, type="t", queue="q", priority=5, payload=b"{}", max_attempts=1, timeout=1.0, **times
    )
    assert job.status is status


def test_the_diagram_shows_every_move_once() -> None:
    lines = lifecycle.mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    drawn = [
        (before, cause, after)
        for line in lines[1:]
        if not line.strip().startswith("[*]")
        for before, _, rest in [line.strip().partition(" --> ")]
        for after, _, causes in [rest.partition(": ")]
        for cause in causes.split(", ")
    ]
    assert sorted(drawn) == sorted(
        (before.value, cause.value, after.value) for before, moves in MOVES.items() for cause, after in moves.items()
    )
