"""The way in: jobs of many requests share a commit, and a request that is sent twice is accepted once.

Requests without keys are inserted by one statement. Requests with an Idempotency-Key or a unique_key go by batches that
take try-locks: they never wait for another process and cannot deadlock with it. After the locks comes a fresh read, since
a snapshot from before is stale; after the read the inserts; all in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import asyncpg

from jobflow import failpoints
from jobflow.batcher import Batcher
from jobflow.errors import AnswerLost, Conflict, Fault, Invalid, KeyInFlight, StoreUnavailable, UniqueConflict
from jobflow.ledger import NOT_YET, OWNER, Answer, Busy, Holder, Ledger, Outcome, Submission, Submitted
from jobflow.lifecycle import FINAL, NewJob
from jobflow.pool import Connection, Row
from jobflow.store import Store

KEY_KEPT = 24 * 3600.0  # seconds
PATIENCE = 2.0  # seconds that a request waits for another one with its key
CHUNK = 1_000  # jobs for each statement, so that encoding them does not hold the loop
LOCKS = 256  # names for each batch, out of the server's lock table
SETTLE = 3.0  # seconds to find out what became of a lost answer


class Intake:
    """``committed(new)`` is told what was committed together, before anybody is answered: who runs it starts the sooner."""

    def __init__(self, store: Store) -> None:
        self.committed: Callable[[Sequence[Submitted]], None] = lambda new: None
        self._store = store  # many connections, for big requests
        self._plain_store, self._careful_store = store.pinned(), store.pinned()
        self._plain: Batcher[Submission, Submitted] = Batcher(self._insert, limit=500)
        self._careful: Batcher[Submission, Submitted] = Batcher(self._insert_carefully, limit=LOCKS)
        self._queues: set[str] = set()

    async def submit(self, submission: Submission) -> Submitted:
        """Commit one request. See Client.submit for what is raised."""
        unknown = {job.queue for job in submission.jobs} - self._queues
        if unknown:
            await self._store.add_queues(unknown)
            self._queues |= unknown
        if submission.names():
            return await self._submit_carefully(submission)
        if len(submission.jobs) == 1:
            return await self._plain.submit(submission)
        outcome = (await self._insert([submission], self._store))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def revive(self, ids: Sequence[UUID]) -> tuple[list[Row], dict[UUID, Conflict]]:
        """Retry jobs. A final one becomes live again, so its unique_key has to be free; those of others are refused.

        ids: at most 500. Returns the rows retried, and why others were refused.
        """
        known = await self._store.find_status(ids)
        wanted: dict[str, UUID] = {}
        twins: dict[UUID, Conflict] = {}
        for id, row in known.items():
            key = row["unique_key"]
            if key is not None and row["status"] in FINAL and wanted.setdefault(key, id) != id:
                twins[id] = UniqueConflict(
                    f"unique_key {key!r} is taken by job {wanted[key]}.", holder=str(wanted[key])
                )
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                async with self._store.connection() as connection, connection.transaction():
                    refused = twins | (await self._taken(wanted, connection) if wanted else {})
                    return await self._store.retry_jobs(connection, [id for id in ids if id not in refused]), refused
            except (Busy, asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                if asyncio.get_running_loop().time() > deadline:
                    raise KeyInFlight("Another request works on a job with the same unique_key. Try again.") from None
                await asyncio.sleep(0.02)

    async def _taken(self, wanted: dict[str, UUID], connection: Connection) -> dict[UUID, Conflict]:
        names = [f"u{OWNER}\x1f{key}" for key in wanted]
        alone = len(names) > LOCKS
        if not await self._store.try_keys_lock(connection, alone=alone):
            raise Busy
        if not alone and len(await self._store.try_locks(connection, names)) < len(names):
            raise Busy
        holders = await self._store.find_unique(connection, OWNER, list(wanted))
        return {
            wanted[key]: UniqueConflict(
                f"unique_key {key!r} is taken by job {row['id']}.", holder=str(row["id"]), current_status=row["status"]
            )
            for key, row in holders.items()
        }

    async def close(self) -> None:
        await self._plain_store.release()
        await self._careful_store.release()

    # ---- without keys -----------------------------------------------------------------------------------------------

    async def _insert(self, batch: Sequence[Submission], store: Store | None = None) -> list[Outcome]:
        jobs = [job for submission in batch for job in submission.jobs]
        try:
            created_at = await self._insert_all(jobs, store or self._plain_store)
        except AnswerLost as lost:
            return await self._ask(batch, lost)
        except asyncpg.DataError as error:
            if len(batch) > 1:
                # One row that Postgres does not take must not refuse its neighbours.
                return [(await self._insert([submission], store))[0] for submission in batch]
            return [Invalid(Fault("", f"Postgres does not take this: {error}"))]
        await failpoints.reach("enqueue.committed")
        return self._tell([Submitted(jobs=submission.jobs, created_at=created_at) for submission in batch])

    async def _insert_all(self, jobs: Sequence[NewJob], store: Store) -> datetime:
        if len(jobs) <= CHUNK:
            return await store.insert_jobs(jobs)
        async with store.connection() as connection, connection.transaction():
            return await self._insert_chunks(jobs, connection)

    async def _insert_chunks(self, jobs: Sequence[NewJob], connection: Connection) -> datetime:
        for start in range(0, len(jobs), CHUNK):
            created_at = await self._store.insert_jobs(jobs[start : start + CHUNK], connection)
        return created_at

    async def _ask(self, batch: Sequence[Submission], lost: AnswerLost) -> list[Outcome]:
        """The answer to an insert was lost. Never insert again: a job that has run already would run twice. Ask.

        Those whose jobs are there are answered, the others are told that Postgres was away.
        """
        found: dict[UUID, datetime] = {}
        try:
            async with asyncio.timeout(SETTLE):
                while True:
                    # The other connections may have broken together with that one: each of them says so once.
                    with suppress(StoreUnavailable):
                        if await self._store.end_backend(lost.backend):
                            found = await self._store.find_jobs([job.id for s in batch for job in s.jobs])
                            break
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise lost from None
        # All of a submission, not its first job alone: with on_conflict="return" some ids are not those it came with.
        return self._tell(
            [
                Submitted(jobs=s.jobs, created_at=found[s.jobs[0].id])
                if all(job.id in found for job in s.jobs)
                else lost
                for s in batch
            ]
        )

    def _tell(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if new := [made for made in outcomes if isinstance(made, Submitted) and not made.replayed]:
            self.committed(new)
        return list(outcomes)

    # ---- with keys --------------------------------------------------------------------------------------------------

    async def _submit_carefully(self, submission: Submission) -> Submitted:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await self._careful.submit(submission)
            except Busy:
                if asyncio.get_running_loop().time() > deadline:
                    raise KeyInFlight("A request with the same key is still being worked on. Send it again.") from None
                await asyncio.sleep(0.02)

    async def _insert_carefully(self, batch: Sequence[Submission]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        # Very many keys of one request would not fit beside others into the server's lock table.
        for group in _groups(batch):
            outcomes += await self._insert_group(group)
        return outcomes

    async def _insert_group(self, group: Sequence[Submission]) -> Sequence[Outcome]:
        try:
            store = self._careful_store
            async with store.connection() as connection, connection.transaction():
                outcomes = await self._decide(group, connection)
                await failpoints.reach("keyed.inserted")
            await failpoints.reach("keyed.committed")
            return self._tell(outcomes)
        except AnswerLost as lost:
            return await self._ask(group, lost)
        except (Busy, asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            return [Busy()] * len(group)
        except asyncpg.DataError as error:
            if len(group) > 1:
                return [(await self._insert_group([submission]))[0] for submission in group]
            return [Invalid(Fault("", f"Postgres does not take this: {error}"))]

    async def _decide(self, group: Sequence[Submission], connection: Connection) -> list[Outcome]:
        names = set().union(*(submission.names() for submission in group))
        alone = len(names) > LOCKS
        if not await self._store.try_keys_lock(connection, alone=alone):
            raise Busy
        locked = names if alone else await self._store.try_locks(connection, sorted(names))
        await failpoints.reach("keyed.locked")
        ready = [submission for submission in group if submission.names() <= locked]
        ledger = await self._read(ready, connection)
        plans = [ledger.plan(s) if s.names() <= locked else Busy() for s in group]
        if ledger.replaced:
            gone = await self._store.cancel_jobs(
                ledger.replaced, "replaced by a newer job with its unique_key", connection
            )
            if len(gone) != len(ledger.replaced):
                raise Busy  # one has been claimed since the read: read again
        created_at = None
        if ledger.jobs:
            created_at = await self._insert_chunks(ledger.jobs, connection)
        elif ledger.new_keys:
            created_at = await connection.fetchval("SELECT now()")  # as their keys: live jobs are returned instead
        if ledger.new_keys:
            await self._store.insert_keys(connection, OWNER, ledger.new_keys, KEY_KEPT)
        for plan in plans:
            if isinstance(plan, Submitted) and plan.created_at is NOT_YET:
                plan.created_at = created_at or NOT_YET
        return plans

    async def _read(self, ready: Sequence[Submission], connection: Connection) -> Ledger:
        keys = [s.key for s in ready if s.key is not None]
        unique = list({job.unique_key for s in ready for job in s.jobs if job.unique_key is not None})
        found = await self._store.find_keys(connection, OWNER, keys) if keys else {}
        holders = await self._store.find_unique(connection, OWNER, unique) if unique else {}
        return Ledger(
            {key: Answer(row["fingerprint"], row["job_ids"], row["created_at"]) for key, row in found.items()},
            {key: Holder(row["id"], row["status"]) for key, row in holders.items()},
        )


def _groups(batch: Sequence[Submission]) -> list[list[Submission]]:
    """Keep the order, and at most LOCKS names in each group (more only for a single request)."""
    groups: list[list[Submission]] = []
    count = LOCKS + 1
    for submission in batch:
        names = len(submission.names())
        if count + names > LOCKS:
            groups.append([])
            count = 0
        groups[-1].append(submission)
        count += names
    return groups
