"""/dlq: the dead-letter view, and back to life."""

from __future__ import annotations

import msgspec
from litestar import get, post
from litestar.types import ASGIApp

from jobflow.client import DeadFilter
from jobflow.errors import Fault, Invalid
from jobflow.lifecycle import Status
from jobflow.payloads import token
from jobflow.web.body import read_json
from jobflow.web.call import Call, json_answer
from jobflow.web.jobs import job_page
from jobflow.web.openapi import FILTER_PARAMETERS, Operation
from jobflow.web.query import no_query, read_listing
from jobflow.web.schemas import JobList, Matched, fit


@get(
    "/dlq",
    doc=Operation(
        "listDeadJobs",
        "List the dead-letter queue, newest first.",
        {200: JobList},
        query=FILTER_PARAMETERS,
        errors=(400, 422, 503),
    ),
)
async def list_dead(request: Call) -> ASGIApp:
    """``GET /jobs?status=dead_letter`` under a name of its own."""
    return await job_page(request, *read_listing(request, (Status.DEAD_LETTER.value,)))


@post(
    "/dlq/retry",
    doc=Operation(
        "retryDeadJobs",
        "Retry dead-letter jobs by ids, by filter, or all of them.",
        {202: Matched},
        body=DeadFilter,
        errors=(400, 413, 415, 422, 503),
    ),
)
async def retry_dead(request: Call) -> ASGIApp:
    """202 with the number of jobs that matched. An empty filter needs ``"all": true``: nobody revives all by a slip."""
    no_query(request)
    wanted = fit(await read_json(request), DeadFilter)
    given = [name for name, value in msgspec.structs.asdict(wanted).items() if value is not None and name != "all"]
    if not given and not wanted.all:
        raise Invalid(Fault("", 'says nothing: give ids, a filter, or "all": true for every dead-letter job'))
    if wanted.all and given:
        raise Invalid(Fault("/all", f"means every dead-letter job; leave it or {', '.join(given)} out"))
    if wanted.ids is not None and len(given) > 1:
        raise Invalid(*(Fault(token(name), "may not come together with ids") for name in given if name != "ids"))
    return json_answer(Matched(matched=await request.parts.client.retry_dead(wanted)), 202)


ROUTES = [list_dead, retry_dead]
