"""One of N worker coroutines: takes a claimed run, executes it, hands its ending to the completer."""

from __future__ import annotations

from jobflow.engine.completer import Endings
from jobflow.engine.executor import Executor
from jobflow.engine.slots import Slots
from jobflow.events import Events, RunStarted


class Worker:
    def __init__(self, *, slots: Slots, executor: Executor, endings: Endings, events: Events) -> None:
        self._slots, self._executor, self._endings, self._events = slots, executor, endings, events

    async def work(self) -> None:
        """Until the inbox hands out None."""
        while (supervision := await self._slots.inbox.get()) is not None:
            self._events.emit(RunStarted(supervision.run))
            change = await self._executor.execute(supervision.run, supervision)
            self._endings.offer(change, supervision)
