"""What is possible in which state, and the sentence about how it went."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from jobflow.errors import Conflict, NotFound
from jobflow.lifecycle import Status
from jobflow.web.dashboard.actions import ACTIONS, act_on_all, named, possible


@pytest.mark.parametrize(
    ("status", "names"),
    [
        (Status.WAITING, "cancel discard delete"), (Status.PENDING, "cancel discard delete"),
        (Status.SCHEDULED, "retry cancel discard delete"), (Status.FAILED, "retry cancel discard delete"),
        (Status.PROCESSING, "cancel"), (Status.COMPLETED, "delete"), (Status.DEAD_LETTER, "retry delete"),
        (Status.CANCELLED, "retry discard delete"),
    ],
)  # fmt: skip
def test_each_state_has_its_buttons(status: Status, names: str) -> None:
    assert " ".join(action.name for action in possible(status)) == names


def test_only_known_actions() -> None:
    assert named("retry").title == "Retry"
    with pytest.raises(NotFound):
        named("explode")


async def test_those_that_cannot_are_counted_with_a_reason() -> None:
    good, bad = uuid4(), uuid4()
    done = []

    async def retry(client: Any, id: Any) -> None:
        if id == bad:
            raise Conflict("The job is completed.")
        done.append(id)

    action = ACTIONS["retry"]._replace(do=retry)
    client: Any = None
    assert await act_on_all(action, client, [good]) == "Retry: 1 of 1 job."
    assert (
        await act_on_all(action, client, [bad, good]) == "Retry: 1 of 2 jobs. Not possible for 1: The job is completed."
    )
    assert done == [good, good]
