"""Whether Postgres and Redis answer, as the parts that talk to them find out."""

from __future__ import annotations

import math
import time

from jobflow.engine.lease import boottime
from jobflow.events import Events, ServerAway, ServerBack


class Health:
    def __init__(self, events: Events) -> None:
        self._events = events
        self._away: dict[str, float] = {}  # server → since when, monotonic
        self.broker_failed_at = -math.inf  # boottime() of the last refusal, whatever was answered since

    @property
    def broker_up(self) -> bool:
        return "redis" not in self._away

    @property
    def store_up(self) -> bool:
        return "postgres" not in self._away

    def broker_failed(self, error: Exception) -> None:
        self.broker_failed_at = boottime()
        self._failed("redis", error)

    def broker_answered(self) -> None:
        self._answered("redis")

    def store_failed(self, error: Exception) -> None:
        self._failed("postgres", error)

    def store_answered(self) -> None:
        self._answered("postgres")

    def _failed(self, server: str, error: Exception) -> None:
        if server not in self._away:
            self._away[server] = time.monotonic()
            self._events.emit(ServerAway(server, str(error) or type(error).__name__))

    def _answered(self, server: str) -> None:
        since = self._away.pop(server, None)
        if since is not None:
            self._events.emit(ServerBack(server, time.monotonic() - since))
