"""/jobs: submit one, list, read, act on one. ``bulk.py`` takes many."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from jobflow.client import JobRequest, Submission, due_at
from jobflow.errors import NotFound, Pruned, StoreUnavailable
from jobflow.lifecycle import FINAL, Job, Status
from jobflow.listing import JobFilter
from jobflow.web import cursor
from jobflow.web.accept import WAIT_MAX, matches, preferred_wait, prefers
from jobflow.web.body import read_json, read_nothing
from jobflow.web.call import Answer, Call, json_answer
from jobflow.web.idempotency import Fingerprint, read_key
from jobflow.web.openapi import (
    FILTER_PARAMETERS,
    KEY_HEADER,
    PREFER_HEADER,
    STATUS_PARAMETER,
    WAIT_PARAMETER,
    Operation,
)
from jobflow.web.query import Paging, Query, no_query, read_listing
from jobflow.web.schemas import JobList, fit, submitted_job

T = TypeVar("T")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
REPLAYED = (b"idempotency-replayed", b"true")


@post(
    "/jobs",
    doc=Operation(
        "submitJob",
        "Submit a job. Its row is committed before the answer.",
        {201: Job, 200: Job},
        body=JobRequest,
        headers=(KEY_HEADER, PREFER_HEADER),
        errors=(400, 409, 413, 415, 422, 503),
    ),
)
async def submit_job(request: Call) -> ASGIApp:
    """201 with the job, or 200 with the live one that holds its unique_key (``on_conflict: return``)."""
    no_query(request)
    tree = await read_json(request)
    client = request.parts.client
    job = client.prepare(fit(tree, JobRequest))
    key, fingerprint = read_key(request.visit.headers), b""
    if key is not None:
        hashed = Fingerprint("POST", "/jobs")
        hashed.add([tree])
        fingerprint = hashed.digest()
    done = await client.submit(Submission(jobs=(job,), key=key, fingerprint=fingerprint))
    job = done.jobs[0]
    location = (b"location", b"/jobs/" + str(job.id).encode())
    if job.id in done.existing:
        found = await request.parts.store.get_job(job.id)
        return json_answer(found, 200, location, *([REPLAYED] if done.replayed else []))
    more = [location, *([REPLAYED] if done.replayed else [])]
    view = submitted_job(job, done.created_at, due_at(job, done.created_at))
    if seconds := preferred_wait(request.visit.headers.get(b"prefer")):
        # It is accepted, whatever happens while we wait: only a preference may fail here.
        with suppress(StoreUnavailable, NotFound, Pruned):
            view = await request.parts.hub.changed(job.id, seconds, lambda now: now.status in FINAL)
            more.append((b"preference-applied", b"wait=%d" % seconds))
    return json_answer(view, 201, *more)


@get(
    "/jobs",
    doc=Operation(
        "listJobs",
        "List jobs, newest first.",
        {200: JobList},
        query=(STATUS_PARAMETER, *FILTER_PARAMETERS),
        errors=(400, 422, 503),
    ),
)
async def list_jobs(request: Call) -> ASGIApp:
    """A page of jobs. Total exact up to 10,000."""
    return await job_page(request, *read_listing(request))


async def job_page(request: Call, wanted: JobFilter, paging: Paging) -> Answer:
    """Raises Malformed: the cursor is of another list."""
    before = None if paging.cursor is None else cursor.decode(paging.cursor, wanted)
    page = await request.parts.store.list_jobs(wanted, limit=paging.limit, before=before, offset=paging.offset)
    return json_answer(
        JobList(
            items=page.items,
            total=page.total,
            total_capped=page.capped,
            next_cursor=None if page.next is None else cursor.encode(page.next, wanted),
            searched=page.searched,
        )
    )


@get(
    "/jobs/{job_id:str}",
    doc=Operation(
        "getJob",
        "One job with its attempts. Asked for text/html: 303 to its page.",
        {200: Job, 303: None, 304: None},
        query=(WAIT_PARAMETER,),
        errors=(404, 410, 422, 503),
    ),
)
async def get_job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """200 with a strong ETag, or 304 when If-None-Match has it.

    ``wait``: seconds (at most 30) to wait for a change, from what If-None-Match knows or from now; the job of a final
    state is answered at once.
    """
    query = Query(request.query_bytes, ("wait",))
    seconds = query.integer("wait", 0, 0, WAIT_MAX)
    query.finish()
    id = read_id(job_id)
    headers = request.visit.headers
    if prefers(headers.get(b"accept"), ("text/html", "application/xhtml+xml")):
        return Answer(303, b"", [(b"location", b"/dashboard/jobs/" + str(id).encode()), (b"vary", b"accept")])
    job = await request.parts.store.get_job(id)
    known = headers.get(b"if-none-match")
    if seconds and job.status not in FINAL and (known is None or matches(known, _etag(job))):
        first = _etag(job)
        job = await request.parts.hub.changed(id, seconds, lambda now: _etag(now) != first)
    etag = _etag(job)
    common = [(b"etag", etag.encode()), (b"cache-control", b"no-cache"), (b"vary", b"accept")]
    if matches(known, etag):
        return Answer(304, b"", common)
    return Answer(200, msgspec.json.encode(job), [(b"content-type", b"application/json"), *common])


def _etag(job: Job) -> str:
    return f'"{hashlib.blake2b(msgspec.json.encode(job), digest_size=12).hexdigest()}"'


@post(
    "/jobs/{job_id:str}/retry",
    doc=Operation(
        "retryJob",
        "Make a failed, scheduled, dead-letter or cancelled job runnable now.",
        {200: Job},
        errors=(404, 409, 410, 413, 415, 422, 503),
    ),
)
async def retry_job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """Raises Conflict: not from its state, or another live job holds its unique_key."""
    return json_answer(await _act(request, job_id, request.parts.client.retry))


@post(
    "/jobs/{job_id:str}/cancel",
    doc=Operation(
        "cancelJob",
        "Stop a job on purpose. 202: it is running, its handler was asked to stop.",
        {200: Job, 202: Job},
        errors=(404, 409, 410, 413, 415, 422, 503),
    ),
)
async def cancel_job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """Raises Conflict: it is completed or in the dead-letter queue."""
    job = await _act(request, job_id, request.parts.client.cancel)
    return json_answer(job, 202 if job.status == Status.PROCESSING else 200)


@post(
    "/jobs/{job_id:str}/discard",
    doc=Operation(
        "discardJob",
        "Move a job to the dead-letter queue.",
        {200: Job},
        errors=(404, 409, 410, 413, 415, 422, 503),
    ),
)
async def discard_job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """Raises Conflict: it is running, completed or there already."""
    return json_answer(await _act(request, job_id, request.parts.client.discard))


@delete(
    "/jobs/{job_id:str}",
    status_code=200,  # only for Litestar, which forbids a body type with 204; the answer carries its own
    doc=Operation(
        "deleteJob",
        "Delete a job that is not running, with its history.",
        {204: None},
        errors=(404, 409, 410, 413, 415, 422, 503),
    ),
)
async def delete_job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    """Raises Conflict: it is running."""
    await _act(request, job_id, request.parts.client.delete)
    return Answer(204, b"", [])


async def _act(request: Call, job_id: str, action: Callable[[UUID], Awaitable[T]]) -> T:
    no_query(request)
    id = read_id(job_id)
    await read_nothing(request)
    return await action(id)


def read_id(text: str) -> UUID:
    """An id from a path. Raises NotFound: it is no UUID, so there is no such job."""
    if not _UUID.fullmatch(text):
        raise NotFound("There is no such job: an id is a UUID, such as 0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60.")
    return UUID(text)


ROUTES = [submit_job, list_jobs, get_job, retry_job, cancel_job, discard_job, delete_job]
