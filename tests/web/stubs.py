"""Parts of which each test sets the few answers it needs; nothing here stores or decides anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
from litestar import Litestar

from jobflow.events import Event, Events
from jobflow.lifecycle import NewJob
from jobflow.registry import Registry
from jobflow.settings import Settings
from jobflow.web import Parts, build_app
from tests.support import rows

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def new_job(**changes: Any) -> NewJob:
    """Always the same one, but for ``changes``."""
    return rows.new_job(**{"id": UUID("0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60"), "type": "a"} | changes)


class Stage:
    """Stubbed parts, the application on them, and the events it emitted."""

    def __init__(self, settings: Settings | None = None, *, grant: int | None = None, **answers: Any) -> None:
        """``grant``: how many requests the broker lets through at a time, all by default.

        ``answers``: ``client_retry=error`` makes ``client.retry`` raise it; another value is returned.
        """
        self._grant = grant
        self.emitted: list[Event] = []
        self.taken: list[tuple[str, int]] = []
        events = Events()
        events.subscribe(self.emitted.extend)
        self.engine = SimpleNamespace(
            state="running", broker_up=True, store_up=True, held=None, live_processes=1, pulse=lambda: 0.1
        )
        self.client = SimpleNamespace(prepare=lambda request: new_job(type=request.type))
        for name in ("submit", "retry", "cancel", "discard", "delete", "retry_dead"):
            setattr(self.client, name, _answering(AssertionError(f"{name} was called")))
        self.store = SimpleNamespace(ping=_answering(None))
        for name, answer in answers.items():
            part, _, method = name.partition("_")
            setattr(getattr(self, part), method, _answering(answer))
        parts: Any = Parts(
            settings=settings or Settings(),
            client=self.client,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            broker=self,  # type: ignore[arg-type]
            engine=self.engine,  # type: ignore[arg-type]
            registry=Registry(),
            events=events,
            metrics=SimpleNamespace(),  # type: ignore[arg-type]
            hub=SimpleNamespace(round=0),  # type: ignore[arg-type]
        )
        self.app = build_app(parts, _nothing)

    async def take(self, client: str, wanted: int, limit: int, window_seconds: float) -> tuple[int, int, float]:
        self.taken.append((client, wanted))
        granted = wanted if self._grant is None else min(wanted, self._grant)
        return granted, limit - wanted if granted else 0, window_seconds

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=options.pop("peer", ("127.0.0.1", 1)))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as http:
            return await http.request(method, path, **options)


def _answering(answer: Any) -> Any:
    async def method(*args: Any, **kwargs: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return method


@asynccontextmanager
async def _nothing(app: Litestar) -> AsyncIterator[None]:
    yield
