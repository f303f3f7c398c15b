"""One of N worker coroutines: takes a claimed run, executes it, hands its ending to the completer."""

from __future__ import annotations

from jobflow.engine.completer import Endings
from jobflow.engine.executor import Executor
from jobflow.engine.slots import SUSPECT, Slots
from jobflow.events import Events, RunStarted
from jobflow.lifecycle import hand_back


class Worker:
    def __init__(self, *, slots: Slots, executor: Executor, endings: Endings, events: Events) -> None:
        self._slots, self._executor, self._endings, self._events = slots, executor, endings, events

    async def work(self) -> None:
        """Until the inbox hands out None."""
        while (supervision := await self._slots.inbox.get()) is not None:
            run = supervision.run
            if run.rescues >= SUSPECT:
                if not self._slots.isolate(run):
                    self._endings.offer(hand_back(run), supervision)
                    continue
                await self._slots.alone(supervision)
            self._events.emit(RunStarted(run))
            change = await self._executor.execute(run, supervision)
            self._endings.offer(change, supervision)
