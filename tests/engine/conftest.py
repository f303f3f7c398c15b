from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from jobflow.app import create_app
from jobflow.broker import Broker
from jobflow.settings import Settings
from jobflow.store import Store
from tests.support.parts import NOWHERE, Parts, parts_on
from tests.support.running import Running


@pytest.fixture
async def parts(store: Store, broker: Broker) -> AsyncIterator[Parts]:
    """The parts of one registered process."""
    async with parts_on(store, broker) as made:
        yield made


@pytest.fixture
async def dead_broker() -> AsyncIterator[Broker]:
    """Nobody listens there."""
    broker = Broker(NOWHERE, lane_size=1_000, pool_size=4)
    yield broker
    await broker.close()


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, grace=0.2, lease=2.5)


@pytest.fixture
async def running(quick: Settings) -> AsyncIterator[Running]:
    app = create_app(quick)
    running = Running(app)
    async with app.lifespan():
        yield running
