"""For machines that watch: /livez, /readyz, /metrics, /openapi.json, and / for whoever looks in."""

from __future__ import annotations

import asyncio

from litestar import HttpMethod, get, route
from litestar.types import ASGIApp

from jobflow.errors import StoreUnavailable
from jobflow.lifecycle import Status
from jobflow.overview import Totals
from jobflow.web.accept import prefers
from jobflow.web.call import Answer, Call, json_answer, text_answer
from jobflow.web.dashboard.overview import home
from jobflow.web.dashboard.page import asks_for_html
from jobflow.web.openapi import VERBOSE_PARAMETER, Operation
from jobflow.web.parts import Parts
from jobflow.web.query import no_query
from jobflow.web.schemas import MetricsView

STILL = 60.0  # seconds without a tick after which a process is better restarted
PING = 2.0  # seconds Postgres has to answer

INDEX = """Jobflow: background jobs over REST. Submit work, see it run, never lose it.

POST /jobs          submit a job: {"type": "email.send", "payload": {...}}
POST /jobs/bulk     submit up to 10,000 at once
GET  /jobs          list them     GET /jobs/{id}   one of them
GET  /dlq           those that failed for good
GET  /queues        depth and flow        GET /workers   who works        GET /types   what can be done
GET  /metrics       numbers               GET /readyz    health
GET  /openapi.json  all of this for machines
"""


@get("/", doc=Operation("index", "What this is.", {200: ("text/plain", "text/html")}, errors=(422,)))
async def index(request: Call) -> ASGIApp:
    """A page for browsers, plain text for everybody else."""
    no_query(request)
    return await home(request) if asks_for_html(request.visit) else text_answer(INDEX)


@route(
    "/livez",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    doc=Operation(
        "livez",
        "Alive? 503: its loops stand still.",
        {200: "text/plain", 503: "text/plain"},
        query=(VERBOSE_PARAMETER,),
        open=True,
    ),
)
async def livez(request: Call) -> ASGIApp:
    """503 only when a loop has not ticked for 60 s: a restart helps then, and never against a server that is away."""
    late = max(request.parts.engine.pulse(), 0.0)
    alive = late <= STILL
    text = "ok" if alive else f"stuck: a loop is late by {late:.0f} s"
    lines = [f"[{'+' if alive else '-'}] the slowest loop is late by {late:.1f} s"]
    return _health(request, text, lines, 200 if alive else 503)


@route(
    "/readyz",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    doc=Operation(
        "readyz",
        "Ready for requests? 503 while starting, draining or without Postgres; `degraded: redis` is ready.",
        {200: "text/plain", 503: "text/plain"},
        query=(VERBOSE_PARAMETER,),
        open=True,
    ),
)
async def readyz(request: Call) -> ASGIApp:
    """The body says why not. Without Redis everything works, slower."""
    engine = request.parts.engine
    postgres = engine.store_up and await _answers(request.parts)
    if engine.state == "running" and postgres:
        text, status = ("ok" if engine.broker_up else "degraded: redis"), 200
    else:
        text, status = ("postgres is away" if engine.state == "running" else engine.state), 503
    checks = {"engine is " + engine.state: engine.state == "running", "postgres": postgres, "redis": engine.broker_up}
    return _health(request, text, [f"[{'+' if up else '-'}] {name}" for name, up in checks.items()], status)


async def _answers(parts: Parts) -> bool:
    try:
        async with asyncio.timeout(PING):
            await parts.store.ping()
    except (StoreUnavailable, TimeoutError):
        return False
    return True


def _health(request: Call, text: str, lines: list[str], status: int) -> Answer:
    """Other parameters are ignored: a probe must not fail for its spelling."""
    verbose = any(part.partition(b"=")[0] == b"verbose" for part in request.query_bytes.split(b"&"))
    return text_answer("\n".join([*lines, text]) + "\n" if verbose else text + "\n", status)


@get(
    "/metrics",
    doc=Operation(
        "metrics",
        "Counts as JSON, or for Prometheus by Accept.",
        {200: (MetricsView, "text/plain")},
        errors=(422, 503),
    ),
)
async def metrics(request: Call) -> ASGIApp:
    """All from Postgres; the Prometheus text has this process's own counters, too."""
    no_query(request)
    parts = request.parts
    totals, queues = await parts.store.totals(), await parts.store.queues()
    if prefers(request.visit.headers.get(b"accept"), ("text/plain", "application/openmetrics-text")):
        content_type = parts.metrics.content_type.encode()
        return Answer(
            200, parts.metrics.render(totals, queues), [(b"content-type", content_type), (b"vary", b"accept")]
        )
    by = totals.by_status
    return json_answer(
        MetricsView(
            total_jobs=totals.total,
            active_jobs=_count(totals, Status.PROCESSING),
            completed_jobs=_count(totals, Status.COMPLETED),
            failed_jobs=_count(totals, Status.FAILED),
            dead_letter_jobs=_count(totals, Status.DEAD_LETTER),
            queue_length=totals.ready,
            retry_queue_length=totals.retrying,
            dlq_length=_count(totals, Status.DEAD_LETTER),
            by_status=by,
            queues=queues,
        ),
        200,
        (b"vary", b"accept"),
    )


def _count(totals: Totals, status: Status) -> int:
    return totals.by_status.get(status, 0)


@get("/openapi.json", doc=Operation("openapi", "This description.", {200: dict}, errors=(422,)))
async def openapi(request: Call) -> ASGIApp:
    """OpenAPI 3.1, built once from the routes."""
    no_query(request)
    return Answer(
        200, request.app.state.openapi, [(b"content-type", b"application/json"), (b"cache-control", b"no-cache")]
    )


ROUTES = [index, livez, readyz, metrics, openapi]
