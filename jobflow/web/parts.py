"""What the web is given: the parts that ``app.py`` built.

Commands go to the client, reads straight to the store; of the engine it only asks how it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobflow.broker import Broker
from jobflow.client import Client
from jobflow.engine.engine import Engine
from jobflow.events import Events
from jobflow.metrics import Metrics
from jobflow.registry import Registry
from jobflow.settings import Settings
from jobflow.store import Store
from jobflow.web.hub import Hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    client: Client
    store: Store
    broker: Broker
    engine: Engine
    registry: Registry
    events: Events
    metrics: Metrics
    hub: Hub
