"""The job types that the benchmarks run, and a look at how late the event loop is and how long the engine holds it.

Most do nothing, so what is measured is everything around them.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench import steps
from jobflow import Context, job, lifespan

PERIOD = 0.005  # seconds between two looks at the loop


@job("noop", max_attempts=5)
async def noop(payload: dict[str, Any]) -> dict[str, bool]:
    return {"ok": True}


@job("compute", max_attempts=5)
async def compute(payload: dict[str, Any]) -> dict[str, bool]:
    """One millisecond of processor time."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        sum(range(100))
    return {"ok": True}


@job("nap", max_attempts=5)
async def nap(payload: dict[str, Any]) -> dict[str, bool]:
    await asyncio.sleep(0.1)
    return {"ok": True}


@job("thread", max_attempts=5)
def thread(payload: dict[str, Any]) -> dict[str, bool]:
    return {"ok": True}


@job("flaky", max_attempts=5, backoff=lambda attempt: 0.0)
async def flaky(payload: dict[str, Any], ctx: Context) -> dict[str, bool]:
    """Three in ten fail once."""
    if ctx.attempt == 1 and payload["number"] % 10 < 3:
        raise RuntimeError("the first attempt fails")
    return {"ok": True}


@job("stamp", max_attempts=5)
async def stamp(payload: dict[str, Any]) -> dict[str, float]:
    """When it began, as the client that sent it tells the time."""
    return {"began": time.time()}


@lifespan
async def watch_the_loop() -> AsyncIterator[None]:
    """Write how late the loop was and how long the engine held it, and when, into the file that BENCH_LOOP names; without it
    do nothing."""
    if file := os.environ.get("BENCH_LOOP"):
        lags: list[tuple[float, float]] = []
        held: steps.Steps = []
        task = asyncio.create_task(_watch(lags))
        steps.watch(asyncio.get_running_loop(), held)
        yield
        task.cancel()
        await asyncio.to_thread(Path(file).write_text, json.dumps({"lag": lags, "steps": held}))
    else:
        yield


async def _watch(lags: list[tuple[float, float]]) -> None:
    """(seconds since 1970, seconds too late). What should have looked while the loop stood still counts as well."""
    while True:
        expected = time.perf_counter() + PERIOD
        await asyncio.sleep(PERIOD)
        late = max(time.perf_counter() - expected, 0.0)
        now = time.time()
        while late > 0:
            lags.append((now, late))
            late -= PERIOD
