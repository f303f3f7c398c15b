"""What the web is given: the parts that ``app.py`` built, and how little of some of them it may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jobflow.client import Client
from jobflow.events import Events
from jobflow.metrics import Metrics
from jobflow.registry import Registry
from jobflow.settings import Settings
from jobflow.store import Store


class EngineStatus(Protocol):
    """How the engine is; the web never steers it."""

    @property
    def state(self) -> str: ...  # starting, running, draining or stopped
    @property
    def broker_up(self) -> bool: ...
    @property
    def store_up(self) -> bool: ...
    @property
    def live_processes(self) -> int: ...
    def pulse(self) -> float: ...  # seconds since the slowest of its loops ticked


class RateBroker(Protocol):
    async def take(self, client: str, wanted: int, limit: int, window_seconds: float) -> tuple[int, int, float]:
        """Count requests in the shared window: (granted, remaining, seconds until the next one leaves it).

        Raises BrokerUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    client: Client
    store: Store
    broker: RateBroker
    engine: EngineStatus
    registry: Registry
    events: Events
    metrics: Metrics
