"""Hears what other processes say over Redis: new jobs, and what has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from jobflow.broker import SUBSCRIBED
from jobflow.engine.health import Health
from jobflow.engine.loop import Pulse, Wake
from jobflow.errors import BrokerUnavailable


class Listener:
    """``source()`` is listened to for as long as Redis answers. ``heard(text)`` is told of each message, ``subscribed()``
    of each new beginning: what was said before it is lost."""

    def __init__(
        self,
        name: str,
        source: Callable[[], AsyncIterator[str | None]],
        *,
        heard: Callable[[str], None],
        subscribed: Callable[[], None],
        health: Health,
        pulse: Pulse,
    ) -> None:
        self.name = name
        self.wake = Wake()
        self._source, self._heard, self._subscribed = source, heard, subscribed
        self._health, self._pulse = health, pulse

    async def tick(self) -> float:
        try:
            async for text in self._source():
                self._pulse.beat(self.name, 10)
                if text:
                    self._heard(text)
                elif text == SUBSCRIBED:
                    self._health.broker_answered()
                    self._subscribed()
        except BrokerUnavailable as error:
            self._health.broker_failed(error)
            raise
        return 0
