"""What an operator should look at now, from the numbers of the overview. Pure: decides, asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobflow.events import TransactionHeld
from jobflow.overview import Minute, Queue, Worker
from jobflow.web.dashboard.filters import duration, number

OLD = 60.0  # seconds that the oldest ready job of a queue may wait unnoticed
SHOWN = 12  # the first ones; a page is no log


class Notice(NamedTuple):
    tone: str  # bad or warn
    text: str
    link: str
    action: str  # what the link says


def find_notices(
    queues: Sequence[Queue],
    workers: Sequence[Worker],
    minutes: Sequence[Minute],
    *,
    broker_up: bool,
    held: TransactionHeld | None,
) -> list[Notice]:
    """The most urgent first, ``SHOWN`` at most."""
    found = [
        *_of_servers(held, broker_up=broker_up),
        *_of_queues(queues, served=any(_works(worker) for worker in workers)),
        *_of_workers(workers),
        *_of_endings(sum(minute.dead for minute in minutes)),
    ]
    return sorted(found, key=lambda notice: notice.tone != "bad")[:SHOWN]


def _works(worker: Worker) -> bool:
    return worker.state == "alive" and not worker.late and worker.concurrency > 0


def _of_servers(held: TransactionHeld | None, *, broker_up: bool) -> Iterator[Notice]:
    if not broker_up:
        text = "Redis is away. Jobs are taken straight from Postgres: nothing is lost, it goes slower."
        yield Notice("warn", text, "/readyz?verbose", "Health")
    if held:
        who = f"{held.name}, process {held.pid}" if held.name else f"process {held.pid}"
        text = (
            f"A transaction in Postgres ({who}) has been open for {duration(held.seconds)}. Until it ends, nothing that "
            f"is deleted frees its space. SELECT pg_terminate_backend({held.pid}) ends it."
        )
        yield Notice("warn", text, "/readyz?verbose", "Health")


def _of_queues(queues: Sequence[Queue], *, served: bool) -> Iterator[Notice]:
    ready = sum(queue.ready for queue in queues if not queue.paused)
    if ready and not served:  # one cause, one notice, however many queues it stops
        what = "One job is" if ready == 1 else f"{number(ready)} jobs are"
        yield Notice("bad", f"{what} ready and no worker process is alive.", "/dashboard/workers", "Workers")
    for queue in queues:
        link = f"/dashboard/jobs?queue={queue.name}"
        if queue.paused:
            reason = f": {queue.paused_reason}" if queue.paused_reason else ""
            yield Notice("warn", f"Queue {queue.name} is paused{reason}. {number(queue.ready)} ready.", link, "Jobs")
        elif served and queue.oldest_ready_age is not None and queue.oldest_ready_age > OLD:
            text = f"The oldest ready job of {queue.name} has waited {duration(queue.oldest_ready_age)}."
            yield Notice("warn", text, link, "Jobs")


def _of_workers(workers: Sequence[Worker]) -> Iterator[Notice]:
    late = [worker for worker in workers if worker.late]
    lost = [worker for worker in workers if worker.state == "lost"]
    for worker in late[:3]:
        text = f"Process {worker.pid} on {worker.host} is late with its heartbeat; its {worker.running} jobs are rescued if it stays away."
        yield Notice("bad", text, "/dashboard/workers", "Workers")
    if lost:
        what = "A worker process was" if len(lost) == 1 else f"{len(lost)} worker processes were"
        yield Notice(
            "warn",
            f"{what} lost in the last day. What was running there was run again.",
            "/dashboard/workers",
            "Workers",
        )


def _of_endings(dead: int) -> Iterator[Notice]:
    if dead:
        what = "One job" if dead == 1 else f"{number(dead)} jobs"
        yield Notice("bad", f"{what} became dead letters in the last hour.", "/dashboard/dlq", "Dead letters")
