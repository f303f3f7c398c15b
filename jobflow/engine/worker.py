"""One of N worker coroutines: takes a claimed run, executes it, hands its ending to the completer."""

from __future__ import annotations

import asyncio
import contextvars

from jobflow.engine.completer import Endings
from jobflow.engine.executor import Executor, Supervision
from jobflow.engine.slots import SUSPECT, Slots
from jobflow.lifecycle import hand_back


class Worker:
    """Handlers run in its task, one after the other: a task for each would cost more than all else that is done for a job.

    What a handler leaves behind in the task (a cancellation, context variables) must not meet the next one: then a new
    task takes over.
    """

    def __init__(self, name: str, *, slots: Slots, executor: Executor, endings: Endings) -> None:
        self._name = name
        self._slots, self._executor, self._endings = slots, executor, endings
        self._clean = contextvars.copy_context()
        self.task: asyncio.Task[None]

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._work(), name=self._name, context=self._clean.copy())

    async def _work(self) -> None:
        """Until the inbox hands out None."""
        while (supervision := await self._slots.inbox.take()) is not None:
            try:
                await self._run(supervision)
            except GeneratorExit as error:
                # Raised by something that the handler awaits, it ends every coroutine up to this one (PEP 380).
                if asyncio.current_task() is not self.task:
                    raise  # it is this coroutine that is closed, because its process ends
                self._endings.offer(self._executor.explain(supervision, error), supervision)
            if supervision.noticed or self.task.cancelling() or contextvars.copy_context() != self._clean:
                self.start()
                return

    async def _run(self, supervision: Supervision) -> None:
        run = supervision.run
        if run.rescues >= SUSPECT:
            if not self._slots.isolate(run):
                self._endings.offer(hand_back(run), supervision)
                return
            await self._slots.alone(supervision)
        supervision.task = self.task
        change = await self._executor.execute(run, supervision)
        self._endings.offer(change, supervision)
