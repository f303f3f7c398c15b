"""What the overview, the queues page and the workers page show, read together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jobflow.lifecycle import Status
from jobflow.overview import Minute, Queue, Worker
from jobflow.store import Store

MINUTES = 60  # of the charts
PRESSING = 8  # queues on the overview


@dataclass(frozen=True)
class State:
    queues: Sequence[Queue]
    workers: Sequence[Worker]
    minutes: Sequence[Minute]

    @property
    def by_status(self) -> dict[Status, int]:
        counts: Counter[str] = Counter()
        for queue in self.queues:
            counts.update(queue.by_status)
        return {status: counts[status] for status in Status}

    @property
    def ready(self) -> int:
        return sum(queue.ready for queue in self.queues)

    @property
    def oldest(self) -> float | None:
        return max(
            (queue.oldest_ready_age for queue in self.queues if queue.oldest_ready_age is not None), default=None
        )

    @property
    def pressing(self) -> list[Queue]:
        """The queues whose jobs have waited longest, by name: a row keeps its place while its numbers change."""
        longest = sorted(self.queues, key=lambda queue: -(queue.oldest_ready_age or 0))[:PRESSING]
        return sorted(longest, key=lambda queue: queue.name)

    @property
    def slots(self) -> int:
        return sum(worker.concurrency for worker in self.workers if worker.state == "alive" and not worker.late)


async def read_state(store: Store) -> State:
    return State(*await store.overview(MINUTES))
