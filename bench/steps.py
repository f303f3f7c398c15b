"""How long each step of the engine's tasks holds the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import jobflow
from jobflow import engine

ENGINE = (
    str(Path(engine.__path__[0])),
    str(Path(jobflow.__path__[0], "pusher.py")),
)  # where its coroutines are written
LEAST = 0.001  # seconds; shorter ones are not kept

Steps = list[tuple[float, float, float]]  # seconds since 1970, seconds, and how many of them on the processor


def watch(loop: asyncio.AbstractEventLoop, steps: Steps) -> None:
    """Note every long step of the engine's tasks that are made from now on. A worker's step includes its handlers'."""

    def factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
        code = getattr(work, "cr_code", None)
        ours = code is not None and code.co_filename.startswith(ENGINE)
        return asyncio.Task(Timed(work, steps) if ours else work, loop=loop, **how)

    loop.set_task_factory(factory)


class Timed(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are timed."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._work, self._steps = work, steps

    def send(self, value: Any) -> Any:
        return self._timed(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        return self._timed(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self

    def _timed(self, step: Any, *given: Any) -> Any:
        began, used = time.perf_counter(), time.thread_time()
        try:
            return step(*given)
        finally:
            seconds = time.perf_counter() - began
            if seconds > LEAST:
                self._steps.append((time.time(), seconds, time.thread_time() - used))
