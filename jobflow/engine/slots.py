"""What this process is running. A slot is taken before a claim is sent and freed only when Postgres answered the ending."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from uuid import UUID

from jobflow.engine.executor import Supervision
from jobflow.engine.inbox import Inbox
from jobflow.engine.lease import boottime
from jobflow.engine.loop import Wake
from jobflow.lifecycle import RESCUES, Run

SUSPECT = RESCUES - 1  # lost processes after which the next loss is the end

BATCH = 500  # jobs for each claim at most
PATIENCE = 0.1  # seconds that free slots wait for more of them, while Postgres is slow

Key = tuple[UUID, int]  # job id and run_epoch


def key(run: Run) -> Key:
    return run.id, run.run_epoch


class Slots:
    """``freed``: woken when a slot falls free. ``inbox``: claimed runs that no worker has taken up yet."""

    def __init__(self, total: int, freed: Wake) -> None:
        self.total = total
        self.runs: dict[Key, Supervision] = {}
        self.inbox = Inbox()
        self._freed = freed
        self._ahead: deque[tuple[str, list[UUID]]] = deque()  # queue, ids that left Redis
        self._reserved = self._promised = 0
        self._patient_until = 0.0  # until when slots that are about to fall free are worth waiting for
        self._coming = 0  # slots that are about to fall free: their runs' endings are on their way to Postgres
        self.stuck: set[Supervision] = set()  # handlers that do not end; each has its slot for good
        self._suspect: Key | None = None

    @property
    def batch(self) -> int:
        """Jobs for each claim at most. No more than half of the slots: while these run, the others are claimed or written."""
        return min(BATCH, (self.total + 1) // 2)

    @property
    def free(self) -> int:
        return self.total - len(self.runs) - self._reserved - len(self.stuck)

    def reserve(self, most: int) -> int:
        """Set slots aside for a claim that is about to be sent. Returns how many."""
        count = max(min(most, self.free), 0)
        self._reserved += count
        return count

    @property
    def scarce(self) -> bool:
        """Whether a claim had better wait a moment: more slots are about to fall free than are free now. One claim for all
        of them costs half of what two cost, and halves would go on as halves for ever."""
        return self.free < min(self.batch, self._coming) and time.monotonic() < self._patient_until

    def expect(self, runs: Iterable[Run]) -> None:
        """The endings of these are sent to Postgres now."""
        self._coming += sum(key(run) in self.runs for run in runs)
        self._patient_until = time.monotonic() + PATIENCE
        if self.free <= 0:
            self._freed.set()

    def give_up(self, runs: Iterable[Run]) -> None:
        """Postgres was asked to end these: those that it did not end keep their slots."""
        kept = sum(key(run) in self.runs for run in runs)
        self._coming -= kept
        if kept:
            self._freed.set()  # a claim may have waited for these

    def promise(self, most: int) -> int:
        """Choose jobs for slots that are about to fall free, and for those that are free already. Returns for how many."""
        count = max(min(most, self._coming + self.free - self._promised), 0) if self._coming else 0
        self._promised += count
        return count

    def keep_ahead(self, promised: int, queue: str, ids: list[UUID]) -> None:
        """These were found for the slots promised."""
        self._promised -= promised - len(ids)
        if ids:
            self._ahead.append((queue, ids))

    def take_ahead(self) -> tuple[str, list[UUID]] | None:
        """Jobs that were chosen ahead, with slots set aside for them: they come before all others."""
        if not self._ahead or not (count := self.reserve(len(self._ahead[0][1]))):
            return None
        queue, ids = self._ahead.popleft()
        if count < len(ids):
            self._ahead.appendleft((queue, ids[count:]))
        self._promised -= count
        return queue, ids[:count]

    def fill(self, reserved: int, runs: Iterable[Run]) -> int:
        """The claim was answered: its runs take the slots set aside, the others are free again."""
        self._reserved -= reserved
        count, began, claimed = 0, time.monotonic(), boottime()
        for run in runs:
            self.runs[key(run)] = supervision = Supervision(run, began, claimed)
            self.inbox.put(supervision)
            count += 1
        return count

    def release(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if self.runs.pop(key(run), None) is not None:
                self._coming -= 1
        self._freed.set()

    def isolate(self, run: Run) -> bool:
        """Whether a run whose job has lost two processes may stay: one such at a time, or the jobs that went down with the
        one to blame would go down with it a third time, which is their end."""
        if self._suspect not in self.runs:
            self._suspect = key(run)
        return self._suspect == key(run)

    async def alone(self, supervision: Supervision) -> None:
        """Wait until no other such run is here: those claimed with it are on their way back."""
        while supervision.cause is None and any(
            other.run.rescues >= SUSPECT for other in self.runs.values() if other is not supervision
        ):
            await asyncio.sleep(0.01)

    def write_off(self, supervision: Supervision) -> None:
        """A handler does not end: its slot is gone until it does."""
        self.stuck.add(supervision)

    def restore(self, supervision: Supervision) -> None:
        self.stuck.discard(supervision)
        self._freed.set()
