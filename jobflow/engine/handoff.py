"""New jobs on their way to a fetcher that rests: it claims them at once, and Redis need not hear of them."""

from __future__ import annotations

from uuid import UUID

from jobflow.broker import Entry
from jobflow.engine.agenda import Agenda
from jobflow.engine.lease import Lease
from jobflow.engine.slots import Slots


class Handoff:
    """Takes only what could have been popped right away: due, of a queue in which nothing waits, for slots that are free.

    What is taken has its slots set aside, and is known to nobody else until it is claimed: the sweep would find it.
    """

    def __init__(self, *, agenda: Agenda, slots: Slots, lease: Lease) -> None:
        self._agenda, self._slots, self._lease = agenda, slots, lease
        self._waiting: dict[str, list[Entry]] = {}
        self._closed = False

    def offer(self, queue: str, entries: list[Entry]) -> bool:
        """Whether these were taken, all of them."""
        if self._closed or not self._lease.trusted():
            return False
        # For each queue a fetcher of its own: had they always one more here, they would never look into Redis.
        if not (queue in self._waiting or self._agenda.wake.awaited):
            return False
        count = len(entries) + len(self._waiting.get(queue, ()))
        if self._agenda.holds(queue) or len(entries) > self._slots.free or count > self._slots.batch:
            return False  # what is more than a claim's share may run elsewhere
        now = self._lease.now()
        if any(entry.run_at > now for entry in entries):
            return False
        self._slots.reserve(len(entries))
        self._waiting.setdefault(queue, []).extend(entries)
        self._agenda.wake.set()
        return True

    def take(self) -> tuple[str, list[UUID]] | None:
        """Those of one queue, for whoever claims them."""
        if not self._waiting:
            return None
        queue, entries = self._waiting.popitem()
        return queue, [entry.id for entry in entries]

    def close(self) -> dict[str, list[Entry]]:
        """Take no more. Returns what nobody will claim."""
        self._closed = True
        left, self._waiting = self._waiting, {}
        return left
