"""What a person may do to jobs, and the sentence about how it went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from jobflow.client import Client
from jobflow.errors import Conflict, Invalid, NotFound, Pruned
from jobflow.lifecycle import Cause, Status, sources

SELECTED = 200  # jobs that one form may name: a page of them


class Action(NamedTuple):
    name: str
    title: str
    hint: str
    sources: frozenset[Status]
    do: Callable[[Client, UUID], Awaitable[Any]]
    asks: bool = False  # for confirmation, also for a single job


def _from(cause: Cause) -> frozenset[Status]:
    return frozenset(sources(cause)) - {Status.PROCESSING}


ACTIONS = {
    action.name: action
    for action in (
        Action("retry", "Retry", "Run again now", _from(Cause.RETRIED), Client.retry),
        Action("cancel", "Cancel", "Stop on purpose", frozenset(sources(Cause.CANCELLED)), Client.cancel),
        Action("discard", "Discard", "Move to the dead letters", _from(Cause.DISCARDED), Client.discard),
        Action(
            "delete",
            "Delete",
            "Remove for good, history included",
            frozenset(Status) - {Status.PROCESSING},
            Client.delete,
            True,
        ),
    )
}


def named(name: str) -> Action:
    """Raises NotFound."""
    if name not in ACTIONS:
        raise NotFound("There is no such action.")
    return ACTIONS[name]


def possible(status: str) -> list[Action]:
    return [action for action in ACTIONS.values() if status in action.sources]


async def act_on_all(action: Action, client: Client, ids: Sequence[UUID]) -> str:
    """Do it to each; those that cannot are left as they are. Returns what to tell the person."""
    refused: list[str] = []
    for id in ids:
        try:
            await action.do(client, id)
        except (Conflict, Invalid, NotFound, Pruned) as error:
            refused.append(str(error))
    done = len(ids) - len(refused)
    said = f"{action.title}: {done} of {len(ids)} {'job' if len(ids) == 1 else 'jobs'}."
    return f"{said} Not possible for {len(refused)}: {refused[0]}" if refused else said
