"""What people may ask for. Every command goes to the store first and to the broker after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto  # its UUID is a uuid.UUID that is made, hashed and written in C
from msgspec import Meta
from uuid_utils import uuid7

from jobflow.broker import Broker, Entry
from jobflow.errors import BrokerUnavailable, Conflict, Fault, Invalid, JobflowError
from jobflow.events import CANCEL_REQUESTED, Events, JobMoved, JobsEnqueued, Warned
from jobflow.intake import Intake
from jobflow.ledger import Submission, Submitted
from jobflow.lifecycle import MOVES, Cause, Job, NewJob, Status, refusal
from jobflow.payloads import check
from jobflow.pool import Row
from jobflow.pusher import Pusher
from jobflow.registry import QUEUE_NAME, TYPE_NAME, Registry
from jobflow.store import JobFilter, Store

__all__ = ["Client", "DeadFilter", "JobRequest", "Submission", "Submitted"]

LATEST = 10 * 365 * 86_400  # seconds ahead


class JobRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /jobs``: everything a caller may say about a job. ``None`` means the type's default."""

    type: Annotated[str, Meta(pattern=TYPE_NAME)]
    payload: dict[str, Any] = {}
    queue: Annotated[str, Meta(pattern=QUEUE_NAME)] | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    delay: Annotated[float, Meta(ge=0, le=LATEST)] | None = None
    timeout: Annotated[float, Meta(ge=0.1, le=86_400)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    unique_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    on_conflict: Literal["reject", "return", "replace"] = "reject"
    tags: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=20)] = []


class DeadFilter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /dlq/retry``: ids, or a filter, or ``all``."""

    ids: Annotated[list[UUID], Meta(min_length=1, max_length=10_000)] | None = None
    type: Annotated[str, Meta(pattern=TYPE_NAME)] | None = None
    queue: Annotated[str, Meta(pattern=QUEUE_NAME)] | None = None
    tag: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    error: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    created_after: Annotated[datetime, Meta(tz=True)] | None = None
    created_before: Annotated[datetime, Meta(tz=True)] | None = None
    all: bool = False


RETRY_CHUNK = 500  # dead jobs for each transaction of a redrive


class Client:
    """Submits and steers jobs. All methods raise StoreUnavailable while Postgres is away, never for Redis."""

    def __init__(
        self, store: Store, intake: Intake, pusher: Pusher, broker: Broker, registry: Registry, events: Events
    ) -> None:
        self._store, self._intake, self._pusher, self._broker = store, intake, pusher, broker
        self._registry, self._events = registry, events
        intake.committed = self._announce
        self._tasks: set[asyncio.Task[None]] = set()

    def prepare(self, request: JobRequest) -> NewJob:
        """Fill in the defaults of the type and check what needs more than a schema.

        Raises Invalid: the payload does not fit the type, run_at and delay together, expires_at before it may start.
        """
        kind = self._registry.defaults_for(request.type)
        known = self._registry.get(request.type)
        faults: list[Fault] = []
        if request.run_at is not None and request.delay is not None:
            faults.append(Fault("/delay", "give run_at or delay, not both"))
        if request.run_at is not None and request.run_at > datetime.now(UTC) + timedelta(seconds=LATEST):
            faults.append(Fault("/run_at", "must be within ten years from now"))
        if request.on_conflict != "reject" and request.unique_key is None:
            faults.append(Fault("/on_conflict", "means something only together with unique_key"))
        if request.expires_at is not None and request.expires_at <= _starts(request):
            faults.append(Fault("/expires_at", "must be later than the time at which the job may start"))
        try:
            if known is not None:
                known.validate(request.payload)
        except Invalid as error:
            faults += error.faults
        if faults:
            raise Invalid(*faults)
        return NewJob(
            id=pgproto.UUID(uuid7().bytes),
            type=request.type,
            queue=kind.queue if request.queue is None else request.queue,
            priority=kind.priority if request.priority is None else request.priority,
            payload=msgspec.json.encode(request.payload),
            max_attempts=request.max_attempts or kind.max_attempts,
            timeout=request.timeout or kind.timeout,
            run_at=request.run_at,
            delay=request.delay or None,
            expires_at=request.expires_at,
            unique_key=request.unique_key,
            on_conflict=request.on_conflict,
            tags=tuple(dict.fromkeys(request.tags)),
        )

    async def enqueue(self, type: str, payload: Mapping[str, Any] | None = None, **options: Any) -> UUID:
        """Submit one job from inside the application.

        options: the further members of JobRequest. Returns its id once it is committed.
        Raises Invalid, UniqueConflict, StoreUnavailable.
        """
        tree = {"type": type, "payload": msgspec.to_builtins(payload or {}), **options}
        check(tree["payload"])
        try:
            request = msgspec.convert(tree, JobRequest)
        except msgspec.ValidationError as error:
            raise Invalid(Fault("", str(error))) from None
        submitted = await self.submit(Submission(jobs=[self.prepare(request)]))
        return submitted.jobs[0].id

    async def submit(self, submission: Submission) -> Submitted:
        """Commit the jobs of one request. Requests that arrive together share a commit.

        Raises UniqueConflict (a live job holds the unique_key), KeyReused (the key came with another body),
        KeyInFlight (the first request with this key still runs after 2 s), StoreUnavailable.
        """
        return await self._intake.submit(submission)

    def _announce(self, committed: Sequence[Submitted]) -> None:
        """Make the jobs of requests that shared a commit known, to those who run them first."""
        entries: dict[str, list[Entry]] = {}
        events = []
        for submitted in committed:
            new = [job for job in submitted.jobs if job.id not in submitted.existing]
            for job in new:
                entry = Entry(job.priority, due_at(job, submitted.created_at), job.id)
                entries.setdefault(job.queue, []).append(entry)
            if new:
                moment = submitted.created_at  # the same for all
                events.append(JobsEnqueued([j.id for j in new], [j.type for j in new], [j.queue for j in new]))
        for queue, found in entries.items():
            self._pusher.push(queue, found, moment)
        if events:
            self._events.emit(*events)

    # ---- one job ----------------------------------------------------------------------------------------------------

    async def retry(self, id: UUID) -> Job:
        """Make a job runnable again: run a failed or scheduled one now, start a dead or cancelled one over.

        Raises NotFound, Pruned, Conflict (not from this state), UniqueConflict (another live job has its unique_key).
        """
        retried, refused = await self._retry([id])
        if refused:
            raise refused[id]
        if not retried:
            await self._refuse(id, Cause.RETRIED)
        return await self._store.get_job(id)

    async def cancel(self, id: UUID, reason: str = "cancelled by a person") -> Job:
        """Stop a job; of a cancelled one nothing changes. A running one is asked to stop: until its handler has ended,
        its status is ``processing`` and ``cancel_requested`` is true. Raises NotFound, Pruned, Conflict."""
        rows = await self._store.cancel_jobs([id], reason, running=True)
        if rows and rows[0]["before"] != Status.PROCESSING:
            return await self._moved(id, rows, Cause.CANCELLED)
        if rows:
            self._events.emit(JobMoved(id, CANCEL_REQUESTED, Status.PROCESSING, Status.PROCESSING))
        job = await self._store.get_job(id)
        if job.status != Status.CANCELLED and not (job.status == Status.PROCESSING and job.cancel_requested):
            raise refusal(job.status, Cause.CANCELLED)
        return job

    async def discard(self, id: UUID) -> Job:
        """Move a job that is not running to the dead-letter queue. Raises NotFound, Pruned, Conflict."""
        return await self._moved(id, await self._store.discard_jobs([id]), Cause.DISCARDED)

    async def delete(self, id: UUID) -> None:
        """Remove a job and its history for good. Raises NotFound, Pruned, Conflict (it is running)."""
        rows = await self._store.delete_jobs([id])
        if not rows:
            job = await self._store.get_job(id)
            raise Conflict(f"The job is {job.status}: wait until this run has ended.", current_status=job.status)
        self._forget(rows)
        self._events.emit(JobMoved(id, "deleted", rows[0]["before"], ""))

    async def _moved(self, id: UUID, rows: Sequence[Row], cause: Cause) -> Job:
        job = await self._store.get_job(id)
        if not rows:
            raise refusal(job.status, cause)
        self._forget(rows)
        self._events.emit(JobMoved(id, cause.value, rows[0]["before"], MOVES[Status(rows[0]["before"])][cause]))
        return job

    async def _refuse(self, id: UUID, action: Cause) -> None:
        raise refusal((await self._store.get_job(id)).status, action)

    def _forget(self, rows: Sequence[Row]) -> None:
        async def drop() -> None:
            with suppress(BrokerUnavailable):
                for row in rows:
                    await self._broker.drop(row["queue"], [(row["priority"], row["id"])])

        self._background(drop())

    # ---- many -------------------------------------------------------------------------------------------------------

    async def retry_dead(self, wanted: DeadFilter) -> int:
        """Retry dead-letter jobs by ids, by filter or all of them, in the background. Returns how many matched.

        Those whose unique_key another live job holds are left where they are. Raises Invalid: an empty filter
        without ``all``.
        """
        if wanted.ids is not None:
            found = await self._store.find_status(wanted.ids)
            ids = [id for id, row in found.items() if row["status"] == Status.DEAD_LETTER]
            self._background(self._retry_chunks(ids))
            return len(ids)
        chosen = JobFilter(
            statuses=(Status.DEAD_LETTER,), type=wanted.type, queue=wanted.queue, tag=wanted.tag, error=wanted.error,
            created_after=wanted.created_after, created_before=wanted.created_before,
        )  # fmt: skip
        if chosen == JobFilter(statuses=(Status.DEAD_LETTER,)) and not wanted.all:
            raise Invalid(Fault("", 'an empty filter matches everything; send "all": true if that is meant'))
        count = await self._store.count_matching(chosen)
        self._background(self._retry_matching(chosen))
        return count

    async def _retry_chunks(self, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), RETRY_CHUNK):
            await self._redrive(ids[start : start + RETRY_CHUNK])

    async def _retry_matching(self, chosen: JobFilter) -> None:
        """From the newest id downwards, once: a job that fails again meanwhile is not retried for ever."""
        before = None
        try:
            while ids := await self._store.list_ids(chosen, RETRY_CHUNK, before):
                await self._redrive(ids)
                before = ids[-1]
        except JobflowError as error:
            self._events.emit(
                Warned(f"A retry of dead letters ended before all were retried: {error} Ask for it again.")
            )

    async def _redrive(self, ids: Sequence[UUID]) -> None:
        """What cannot be retried now must not keep the rest from it, and is said: nobody waits for an answer."""
        try:
            await self._retry(ids)
        except JobflowError as error:
            self._events.emit(Warned(f"{len(ids)} dead letters were not retried: {error} Ask for it again."))

    async def _retry(self, ids: Sequence[UUID]) -> tuple[list[UUID], dict[UUID, Conflict]]:
        rows, refused = await self._intake.revive(ids)
        for queue, found in groupby(sorted(rows, key=itemgetter("queue")), key=itemgetter("queue")):
            self._pusher.push(queue, [Entry(row["priority"], row["run_at"], row["id"]) for row in found])
        for row in rows:
            self._events.emit(JobMoved(row["id"], Cause.RETRIED.value, row["before"], Status.PENDING.value))
        return [row["id"] for row in rows], refused

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what still goes on in the background: redrives and pushes."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._pusher.flush()
        await self._intake.close()


def due_at(job: NewJob, created_at: datetime) -> datetime:
    """When a new job may run: what insert_jobs.sql writes as run_at."""
    if job.run_at is not None:
        return max(job.run_at, created_at)
    return created_at + timedelta(seconds=job.delay) if job.delay else created_at


def _starts(request: JobRequest) -> datetime:
    now = datetime.now(UTC)
    return max(request.run_at or now + timedelta(seconds=request.delay or 0), now)
