"""``/`` and ``/dashboard``: what this is, how it goes, and what needs attention."""

from __future__ import annotations

from functools import partial

from litestar import get
from litestar.types import ASGIApp

from jobflow.errors import StoreUnavailable
from jobflow.web.call import Answer, Call
from jobflow.web.dashboard.attention import find_notices
from jobflow.web.dashboard.page import live, shared, show
from jobflow.web.dashboard.state import State, read_state

QUEUES = 100  # rows on a page


async def _state(request: Call) -> State:
    """Of what all three pages show parts."""
    return await shared(request, "state", partial(read_state, request.parts.store))


async def home(request: Call) -> Answer:
    """``/`` for browsers; it must also tell that Postgres is away."""
    parts = request.parts
    host = request.visit.headers[b"host"].decode("latin-1")  # the door has checked it
    try:
        state = await read_state(request.parts.store)
    except StoreUnavailable:
        state = None
    return show(request, "home", fragment="home", state=state, engine=parts.engine, host=host)


@get("/dashboard")
@live
async def overview(request: Call) -> ASGIApp:
    state = await _state(request)
    engine = request.parts.engine
    notices = find_notices(state.queues, state.workers, state.minutes, broker_up=engine.broker_up, held=engine.held)
    return show(request, "overview", fragment="overview", state=state, notices=notices)


@get("/dashboard/queues")
@live
async def queues(request: Call) -> ASGIApp:
    state = await _state(request)
    return show(request, "queues", fragment="queues", queues=state.queues[:QUEUES], total=len(state.queues))


@get("/dashboard/workers")
@live
async def workers(request: Call) -> ASGIApp:
    """Living processes first; the store lists 200 at most."""
    state = await _state(request)
    return show(request, "workers", fragment="workers", workers=state.workers)


ROUTES = [overview, queues, workers]
