"""What one request asks for, and what is decided about a batch of them while their locks are held. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from jobflow.errors import Conflict, Fault, Invalid, KeyReused, UniqueConflict
from jobflow.lifecycle import NewJob, Status

OWNER = 0  # one caller for now


class Submission(msgspec.Struct, kw_only=True):
    """The jobs of one request, all or nothing, with the Idempotency-Key they came under."""

    jobs: Sequence[NewJob]
    key: str | None = None
    fingerprint: bytes = b""  # of method, path and body

    def names(self) -> set[str]:
        """What has to be locked before anybody may look."""
        unique = {f"u{OWNER}\x1f{job.unique_key}" for job in self.jobs if job.unique_key is not None}
        return unique | {f"i{OWNER}\x1f{self.key}"} if self.key is not None else unique


class Submitted(msgspec.Struct, kw_only=True):
    jobs: Sequence[NewJob]  # with the ids that hold: those of the first answer when replayed
    created_at: datetime
    replayed: bool = False
    existing: frozenset[UUID] = frozenset()  # ids of live jobs returned by on_conflict="return"


Outcome: TypeAlias = Submitted | Exception


class Busy(Exception):
    """Another process holds a lock of this submission: it may go again with the next batch."""


NOT_YET = datetime.min  # stands for the created_at of an insert that is still to come


class Answer(NamedTuple):
    fingerprint: bytes
    ids: Sequence[UUID]
    created_at: datetime


class Holder(NamedTuple):
    id: UUID
    status: str


class Ledger:
    """What is known under the locks, and what is to be written: submissions are planned one after the other, so a later
    one of the same batch sees the earlier one's keys."""

    def __init__(self, answers: dict[str, Answer], holders: dict[str, Holder]) -> None:
        self._answers, self._holders = answers, holders
        self._planned: set[UUID] = set()
        self.jobs: list[NewJob] = []
        self.replaced: list[UUID] = []
        self.new_keys: list[tuple[str, bytes, Sequence[UUID]]] = []

    def plan(self, submission: Submission) -> Outcome:
        try:
            return self._replay(submission) or self._insert(submission)
        except (KeyReused, Conflict, Invalid, Busy) as error:
            return error

    def _replay(self, submission: Submission) -> Submitted | None:
        answer = self._answers.get(submission.key) if submission.key is not None else None
        if answer is None:
            return None
        if answer.fingerprint != submission.fingerprint:
            raise KeyReused("This Idempotency-Key was used for another request. Use a new key for a new request.")
        jobs = [msgspec.structs.replace(job, id=id) for job, id in zip(submission.jobs, answer.ids, strict=True)]
        return Submitted(jobs=jobs, created_at=answer.created_at, replayed=True)

    def _insert(self, submission: Submission) -> Submitted:
        jobs: list[NewJob] = []
        existing: set[UUID] = set()
        replaced: list[UUID] = []
        holders: dict[str, Holder] = {}
        for index, job in enumerate(submission.jobs):
            jobs.append(job)
            key = job.unique_key
            if key is None:
                continue
            if key in holders:
                detail = f"Another job of this request has the unique_key {key!r}."
                raise Invalid(Fault(f"/jobs/{index}/unique_key", detail))
            holder = self._holders.get(key)
            holders[key] = Holder(job.id, Status.PENDING)
            if holder is None:
                continue
            if job.on_conflict == "return":
                jobs[-1] = msgspec.structs.replace(job, id=holder.id)
                existing.add(holder.id)
                holders[key] = holder
                continue
            replaced.append(_replaceable(job, holder))
            if holder.id in self._planned:
                raise Busy  # it is answered in this batch; replace it in the next
        new = [job for job in jobs if job.id not in existing]
        self.jobs += new
        self.replaced += replaced
        self._planned |= {job.id for job in new}
        self._holders |= holders
        if submission.key is not None:
            ids = [job.id for job in jobs]
            self.new_keys.append((submission.key, submission.fingerprint, ids))
            self._answers[submission.key] = Answer(submission.fingerprint, ids, NOT_YET)
        return Submitted(jobs=jobs, created_at=NOT_YET, existing=frozenset(existing))


def _replaceable(job: NewJob, holder: Holder) -> UUID:
    if job.on_conflict == "replace" and holder.status != Status.PROCESSING:
        return holder.id
    why = "is running and cannot be replaced" if job.on_conflict == "replace" else "has it"
    raise UniqueConflict(
        f"unique_key {job.unique_key!r} is taken: job {holder.id} {why}.",
        holder=str(holder.id),
        current_status=holder.status,
    )
