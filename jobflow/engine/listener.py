"""Hears of new jobs that other processes pushed."""

from __future__ import annotations

from jobflow.broker import SUBSCRIBED, Broker
from jobflow.engine.agenda import Agenda
from jobflow.engine.health import Health
from jobflow.engine.loop import Pulse, Wake
from jobflow.errors import BrokerUnavailable


class Listener:
    name = "listener"

    def __init__(self, *, broker: Broker, agenda: Agenda, health: Health, pulse: Pulse) -> None:
        self.wake = Wake()
        self._broker, self._agenda, self._health, self._pulse = broker, agenda, health, pulse

    async def tick(self) -> float:
        """Listens for as long as Redis answers."""
        try:
            async for queue in self._broker.wakes():
                self._pulse.beat(self.name, 10)
                if queue:
                    self._agenda.notice(queue)
                elif queue == SUBSCRIBED:
                    self._health.broker_answered()
                    self._agenda.notice_all()  # whatever was said before is lost
                    self._agenda.wake.set()
        except BrokerUnavailable as error:
            self._health.broker_failed(error)
            raise
        return 0
