from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobflow.broker import Broker
from jobflow.store import Store
from tests.support.parts import NOWHERE, Parts, parts_on


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
