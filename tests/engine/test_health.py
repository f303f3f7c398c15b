"""An outage is told once when it begins and once when it ends."""

from __future__ import annotations

import pytest

from jobflow.engine.health import Health
from jobflow.events import Event, Events, ServerAway, ServerBack


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_an_outage(server: str) -> None:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.extend)
    health = Health(events)
    if server == "redis":
        failed, answered, up = health.broker_failed, health.broker_answered, lambda: health.broker_up
        other = lambda: health.store_up  # noqa: E731
    else:
        failed, answered, up = health.store_failed, health.store_answered, lambda: health.store_up
        other = lambda: health.broker_up  # noqa: E731
    assert up()
    answered()
    assert seen == []
    failed(OSError("refused"))
    failed(TimeoutError())
    assert (up(), other()) == (False, True)
    assert seen == [ServerAway(server, "refused")]
    answered()
    answered()
    assert up()
    assert isinstance(seen[1], ServerBack)
    assert (seen[1].server, len(seen)) == (server, 2)
    assert 0 <= seen[1].seconds < 5
    failed(TimeoutError())
    assert seen[2] == ServerAway(server, "TimeoutError"), "an error without a text has its name"
