"""Which queues are worth a look, and when: idle fetchers wait for this instead of polling."""

from __future__ import annotations

from datetime import datetime, timedelta

from jobflow.engine.loop import Wake

POLL = 1.0  # seconds: what a lost wake-up costs


class Agenda:
    """``wake`` wakes one fetcher. Queues come and go with ``know``."""

    def __init__(self) -> None:
        self.wake = Wake()
        self._queues: dict[str, bool] = {}  # name → paused
        self._worth: dict[str, None] = {}  # in the order in which they are served
        self._due: dict[str, datetime] = {}
        self._poll_at: datetime | None = None

    def know(self, queues: dict[str, bool]) -> None:
        """The queues there are, and whether they are paused."""
        for queue, paused in queues.items():
            if not paused and self._queues.get(queue, True):  # new, or not paused any more
                self._worth.setdefault(queue)
                self.wake.set()
        self._queues = queues
        self._due = {queue: due for queue, due in self._due.items() if queue in queues}

    @property
    def queues(self) -> list[str]:
        return list(self._queues)

    def holds(self, queue: str) -> bool:
        """Whether a new job of this queue has to wait for its turn: others may be before it, or the queue rests."""
        return queue in self._worth or self._queues.get(queue, True)

    def notice(self, queue: str) -> None:
        """Something may be due in this queue."""
        self._queues.setdefault(queue, False)
        self._worth.setdefault(queue)
        self.wake.set()

    def notice_all(self) -> None:
        """Something may be due in any queue."""
        for queue in self._queues:
            self._worth.setdefault(queue)
        self.wake.set()

    def next(self, now: datetime) -> str | None:
        """The next queue worth a look; it is then left out until noticed, due or polled again."""
        if self._poll_at is None or now >= self._poll_at:
            self._poll_at = now + timedelta(seconds=POLL)
            for queue in self._queues:
                self._worth.setdefault(queue)
        for queue, due in list(self._due.items()):
            if due <= now:
                del self._due[queue]
                self._worth.setdefault(queue)
        while self._worth:
            queue = next(iter(self._worth))
            del self._worth[queue]
            if not self._queues.get(queue, False):
                return queue
        return None

    def again(self, queue: str) -> None:
        """There is more in it: its turn comes after the others', and another fetcher may help."""
        self._worth.setdefault(queue)
        self.wake.set()

    def due(self, queue: str, moment: datetime | None) -> None:
        """When the next job of a queue falls due, as far as is known."""
        if moment is None:
            self._due.pop(queue, None)
        else:
            self._due[queue] = moment

    def wait(self, now: datetime) -> float:
        """Seconds until something falls due, at most a poll's length."""
        moments = [*self._due.values(), *([self._poll_at] if self._poll_at else [])]
        return min(max((min(moments, default=now) - now).total_seconds(), 0.0005), POLL)
