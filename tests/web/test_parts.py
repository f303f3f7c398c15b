"""The real parts have what the web asks of them."""

from __future__ import annotations

from typing import Any

from litestar import Litestar

from jobflow.web import Parts


async def test_a_running_engine_tells_how_it_is(app: Litestar) -> None:
    web: Any = app
    parts: Parts = web.parts

    assert parts.engine.state == "running"
    assert parts.engine.store_up
    assert parts.engine.broker_up
    assert parts.engine.live_processes == 1
    assert parts.engine.pulse() < 5  # below 0: ahead of time


async def test_the_broker_counts_requests(app: Litestar) -> None:
    web: Any = app
    parts: Parts = web.parts

    assert (await parts.broker.take("9.9.9.9", 3, 5, 60.0))[:2] == (3, 2)
    granted, remaining, reset = await parts.broker.take("9.9.9.9", 3, 5, 60.0)
    assert (granted, remaining) == (2, 0)
    assert 0 < reset <= 60
