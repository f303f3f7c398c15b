from __future__ import annotations

import inspect

import pytest

from jobflow import events
from jobflow.events import Event, Events, RunStarted, ServerBack
from tests.support.runs import make_run


def test_every_listener_gets_every_event_at_once_and_in_order() -> None:
    hub, seen = Events(), []
    hub.subscribe(lambda events: seen.append(("first", *events)))
    hub.subscribe(lambda events: seen.append(("second", *events)))
    started, other, back = RunStarted(make_run()), RunStarted(make_run()), ServerBack("redis", 1.0)
    hub.emit(started, other)
    assert seen == [("first", started, other), ("second", started, other)]
    hub.emit(back)
    assert seen[2:] == [("first", back), ("second", back)]


def test_an_event_nobody_listens_to_is_no_error() -> None:
    Events().emit(RunStarted(make_run()))


def test_events_are_values() -> None:
    event = ServerBack("redis", 1.0)
    with pytest.raises(AttributeError):
        event.seconds = 2.0  # type: ignore[misc]
    kinds = [c for _, c in inspect.getmembers(events, inspect.isclass) if issubclass(c, Event)]
    assert len(kinds) > 20
    assert all(kind.__struct_config__.frozen for kind in kinds)
