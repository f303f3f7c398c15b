"""What works: queues, worker processes, job types. Read only."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp

from jobflow.errors import NotFound
from jobflow.overview import Queue
from jobflow.registry import QUEUE_NAME, JobType
from jobflow.web.call import Call, json_answer
from jobflow.web.openapi import Operation
from jobflow.web.query import no_query
from jobflow.web.schemas import QueueList, TypeList, TypeView, WorkerList


@get(
    "/queues", doc=Operation("listQueues", "All queues, with depth, age and flow.", {200: QueueList}, errors=(422, 503))
)
async def list_queues(request: Call) -> ASGIApp:
    """Queues that a job was ever submitted to."""
    no_query(request)
    return json_answer(QueueList(items=await request.parts.store.queues()))


@get("/queues/{name:str}", doc=Operation("getQueue", "One queue.", {200: Queue}, errors=(404, 422, 503)))
async def get_queue(request: Call, name: FromPath[str]) -> ASGIApp:
    """Raises NotFound: no such queue, or no such name."""
    no_query(request)
    if not re.fullmatch(QUEUE_NAME, name):
        raise NotFound("There is no such queue: a name is 1 to 64 of a-z 0-9 _ -")
    return json_answer(await request.parts.store.queue(name))


@get(
    "/workers", doc=Operation("listWorkers", "Worker processes and their leases.", {200: WorkerList}, errors=(422, 503))
)
async def list_workers(request: Call) -> ASGIApp:
    no_query(request)
    return json_answer(WorkerList(items=await request.parts.store.workers()))


@get("/types", doc=Operation("listTypes", "Job types this process handles.", {200: TypeList}, errors=(422,)))
async def list_types(request: Call) -> ASGIApp:
    """Defaults and the JSON Schema of the payload, by name."""
    no_query(request)
    types = sorted(request.parts.registry.types.values(), key=lambda kind: kind.name)
    return json_answer(TypeList(items=[_view(kind) for kind in types]))


def _view(kind: JobType) -> TypeView:
    return TypeView(
        name=kind.name,
        queue=kind.queue,
        priority=kind.priority,
        timeout=kind.timeout,
        max_attempts=kind.max_attempts,
        payload_schema=schema_of(kind.payload_type),
    )


def schema_of(payload_type: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(payload_type)
    except TypeError:  # a custom class inside, which JSON Schema has no word for
        return {"type": "object"}


ROUTES = [list_queues, get_queue, list_workers, list_types]
