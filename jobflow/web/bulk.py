"""POST /jobs/bulk: up to 10,000 jobs in one transaction, read without keeping the event loop from others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import msgspec
from litestar import post
from litestar.types import ASGIApp

from jobflow import payloads
from jobflow.client import JobRequest, Submission
from jobflow.errors import Fault, Invalid, Malformed
from jobflow.lifecycle import NewJob
from jobflow.web.body import BULK_BYTES, BULK_SECONDS, JOB_BYTES, read_body
from jobflow.web.call import Call, json_answer
from jobflow.web.idempotency import Fingerprint, read_key
from jobflow.web.jobs import REPLAYED
from jobflow.web.openapi import KEY_HEADER, Operation
from jobflow.web.query import no_query
from jobflow.web.schemas import BulkAnswer, BulkItem, fit

JOBS = 10_000
SLICE = 0.004  # seconds of work until others get a turn
FAULTS = 20
EXPLAINED_BYTES = 1024 * 1024

_OPENING = re.compile(rb'\s*\{\s*"jobs"\s*:\s*(?=\[)')
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class BulkRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body, for the documentation; it is read piece by piece."""

    jobs: list[JobRequest]


@post(
    "/jobs/bulk",
    doc=Operation(
        "submitJobs",
        "Submit 1 to 10,000 jobs in one transaction, all or none.",
        {201: BulkAnswer},
        body=BulkRequest,
        headers=(KEY_HEADER,),
        errors=(400, 409, 413, 415, 422, 503),
    ),
)
async def submit_jobs(request: Call) -> ASGIApp:
    """201 with the ids in the order of the request. Each job is bounded like a single one (256 KiB)."""
    no_query(request)
    key = read_key(request.visit.headers)
    pieces = split(await read_body(request, BULK_BYTES, BULK_SECONDS))
    fingerprint = None if key is None else Fingerprint("POST", "/jobs/bulk")
    jobs = await prepare_all(pieces, request.parts.client.prepare, fingerprint)
    digest = b"" if fingerprint is None else fingerprint.digest()
    done = await request.parts.client.submit(Submission(jobs=jobs, key=key, fingerprint=digest))
    answer = BulkAnswer(jobs=[BulkItem(id=job.id, existing=job.id in done.existing) for job in done.jobs])
    return json_answer(answer, 201, *([REPLAYED] if done.replayed else []))


def split(raw: bytes) -> list[msgspec.Raw]:
    """Cut ``{"jobs": [ … ]}`` into its items without reading them.

    What stands between the opening and the last brace must be one array, which leaves no room for a second member.
    Raises Malformed, Invalid.
    """
    opening = _OPENING.match(raw)
    closing = raw.rstrip()
    try:
        if opening is None or not closing.endswith(b"}"):
            raise _explained(raw)
        items = _split(memoryview(raw)[opening.end() : len(closing) - 1])
    except RecursionError:
        raise Invalid(Fault("/jobs", f"must not be nested deeper than {payloads.DEPTH} levels")) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _explained(raw) from None
    if not 1 <= len(items) <= JOBS:
        raise Invalid(Fault("/jobs", f"must be 1 to {JOBS:,} jobs, not {len(items):,}"))
    return items


async def prepare_all(
    pieces: list[msgspec.Raw], prepare: Callable[[JobRequest], NewJob], fingerprint: Fingerprint | None
) -> list[NewJob]:
    """Check every item, in slices of 4 ms. Raises Invalid with the first 20 faults, each with the index of its job."""
    jobs: list[NewJob] = []
    faults: list[Fault] = []
    turn = time.perf_counter()
    for index, piece in enumerate(pieces):
        if time.perf_counter() - turn > SLICE:
            await asyncio.sleep(0)
            turn = time.perf_counter()
        try:
            jobs.append(_prepare_one(piece, prepare, fingerprint))
        except Invalid as error:
            faults += [Fault(f"/jobs/{index}{fault.pointer}", fault.detail) for fault in error.faults]
            if len(faults) >= FAULTS:
                break
        except Malformed as error:
            raise Malformed(f"Job {index}: {error}") from None
    if faults:
        raise Invalid(*faults[:FAULTS])
    return jobs


def _prepare_one(
    piece: msgspec.Raw, prepare: Callable[[JobRequest], NewJob], fingerprint: Fingerprint | None
) -> NewJob:
    raw = bytes(piece)
    if len(raw) > JOB_BYTES:
        raise Invalid(Fault("", f"is larger than {JOB_BYTES // 1024} KiB"))
    tree = payloads.parse(raw)
    if fingerprint is not None:
        fingerprint.add([tree])
    return prepare(fit(tree, JobRequest))


def _explained(raw: bytes) -> Invalid | Malformed:
    """Why a body is not ``{"jobs": [ … ]}``."""
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except RecursionError:
        return Invalid(Fault("", f"must not be nested deeper than {payloads.DEPTH} levels"))
    except msgspec.ValidationError:
        return Invalid(Fault("", 'must be an object: {"jobs": [ … ]}'))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _unreadable(raw, error)
    if unknown := [name for name in members if name != "jobs"]:
        return Invalid(
            *(Fault(payloads.token(name), "is not a member here; the only one is jobs") for name in unknown[:FAULTS])
        )
    if "jobs" not in members:
        return Invalid(Fault("/jobs", "is missing: jobs must be a list of jobs"))
    if bytes(members["jobs"]).lstrip()[:1] != b"[":
        return Invalid(Fault("/jobs", "must be a list of jobs"))
    return Invalid(Fault("/jobs", 'is given twice or spelled with escapes; the body must be {"jobs": [ … ]}'))


def _unreadable(raw: bytes, error: Exception) -> Invalid | Malformed:
    """Where NaN or half a surrogate pair stands, if the body is small enough for a slow look at all of it."""
    if len(raw) <= EXPLAINED_BYTES:
        try:
            payloads.parse(raw, depth=payloads.DEPTH + 2)
        except (Invalid, Malformed) as explained:
            return explained
    return Malformed(f"The body is not JSON: {error}.")


ROUTES = [submit_jobs]
