"""The Litestar application: the door in front, the routes behind it, one way to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Message

from jobflow.errors import Unavailable
from jobflow.events import RequestFailed
from jobflow.web import bulk, dashboard, dlq, docs, jobs, live, ops, queues
from jobflow.web.call import Answer, Call, Visit
from jobflow.web.dashboard.page import Pages, wants_page
from jobflow.web.guards import Door
from jobflow.web.openapi import Operation, describe
from jobflow.web.parts import Parts
from jobflow.web.problems import INTERNAL, kind_of, problem

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

ROUTES: list[HTTPRouteHandler] = [
    *jobs.ROUTES,
    *live.ROUTES,
    *bulk.ROUTES,
    *dlq.ROUTES,
    *queues.ROUTES,
    *ops.ROUTES,
    *docs.ROUTES,
    *dashboard.ROUTES,
]


class Web(Litestar):
    """Litestar with a door before its router.

    Litestar's own middleware runs behind the router and never sees an unknown path; ours must guard that one, too.
    """

    def __init__(self, parts: Parts, lifespan: Lifespan) -> None:
        super().__init__(
            route_handlers=ROUTES,
            lifespan=[lifespan],
            exception_handlers={Exception: _answer_error},
            request_class=Call,
            openapi_config=None,  # ours is written from the same types, and has every error
            logging_config=None,  # events are logged by one listener
            debug=False,
        )
        self.parts = parts
        self.pages = self.state.pages = Pages(parts, {route.path for route in self.routes})
        self._door = Door(parts, self.pages.sessions)
        self.state.hub = parts.hub
        self.state.openapi = describe(documented(self))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        visit = self._door.meet(scope)
        scope.setdefault("state", {})["visit"] = visit
        started = False

        def send_signed(message: Message) -> Any:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *visit.extra]
            return send(message)

        try:
            await self._door.check(visit, scope)
        except Exception as error:
            await failed(error, visit, self.pages)(scope, receive, send_signed)
        else:
            try:
                await super().__call__(scope, receive, send_signed)
            except asyncio.CancelledError:
                # A server that ends waits a few seconds for its requests, then cancels them and answers with a bare 500.
                if started or self.parts.engine.state == "running":
                    raise
                ends = Unavailable("This process ends. Send the request again; another one takes it.")
                await failed(ends, visit, self.pages)(scope, receive, send_signed)


def build_app(parts: Parts, lifespan: Lifespan) -> Litestar:
    """The ASGI application.

    lifespan: entered before the first request and left after the last; opens and closes the parts.
    """
    return Web(parts, lifespan)


def documented(app: Litestar) -> Iterator[tuple[str, str, Operation]]:
    """(method, path, operation) of every route that describes itself."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if operation := handler.opt.get("doc"):
                    yield from ((str(method), route.path_format, operation) for method in sorted(handler.http_methods))


def failed(error: Exception, visit: Visit, pages: Pages) -> Answer:
    """The answer to an error; one that nobody expected is a bug, which the log must have."""
    if kind_of(error) is INTERNAL:
        visit.parts.events.emit(
            RequestFailed(method=visit.method, path=visit.path, request_id=visit.request_id, error=error)
        )
    return pages.failure(error, visit) if wants_page(visit, error) else problem(error, visit)


def _answer_error(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
    answer = failed(error, request.scope["state"]["visit"], request.app.state.pages)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=headers.get("content-type"))
