"""An application whose engine runs in the test's loop."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Litestar

from jobflow.engine.engine import Engine
from jobflow.events import Event
from tests.support.waiting import until


class Running:
    def __init__(self, app: Litestar) -> None:
        self.app = app
        self.parts = app.parts  # type: ignore[attr-defined]
        self.engine: Engine = self.parts.engine
        self.seen: list[Event] = []
        self.parts.events.subscribe(self.seen.extend)

    async def enqueue(self, count: int, type: str = "sleep", **options: Any) -> list[UUID]:
        payload = options.pop("payload", {"seconds": 30})
        return [await self.parts.client.enqueue(type, payload, **options) for _ in range(count)]

    async def running(self, count: int) -> None:
        async def started() -> int:
            return len([s for s in self.engine._slots.runs.values() if s.started])

        await until(started, lambda n: n == count)

    async def has(self, kind: type[Event]) -> Any:
        """The last event of that kind, once there is one."""

        async def find() -> list[Event]:
            return [event for event in self.seen if isinstance(event, kind)]

        return (await until(find))[-1]
