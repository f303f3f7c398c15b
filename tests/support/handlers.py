"""Handlers of the applications under test."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Annotated

import msgspec

from jobflow import Cancel, Context, Discard, Snooze, job


class Sum(msgspec.Struct):
    a: int
    b: Annotated[int, msgspec.Meta(ge=0)] = 0


@job("noop")
async def noop(payload: dict) -> None:
    pass


@job("echo")
async def echo(payload: dict, ctx: Context) -> dict:
    return {"payload": payload, "attempt": ctx.attempt}


@job("sum", queue="sums", priority=2, timeout=30, max_attempts=3)
async def add(payload: Sum) -> int:
    return payload.a + payload.b


@job("fail", max_attempts=3, backoff=lambda attempt: 0.05)
async def fail(payload: dict) -> None:
    raise ValueError(payload.get("message", "no luck"))


@job("fail.once", max_attempts=3, backoff=lambda attempt: 0.05)
async def fail_once(payload: dict, ctx: Context) -> int:
    if ctx.attempt == 1:
        raise ValueError("the first time")
    return ctx.attempt


@job("fail.later", max_attempts=3, backoff=lambda attempt: 3600.0)
async def fail_later(payload: dict) -> None:
    raise ValueError("for now")


@job("sleep")
async def sleep(payload: dict) -> str:
    await asyncio.sleep(payload.get("seconds", 0.1))
    return "slept"


@job("sleep.thread")
def sleep_in_a_thread(payload: dict) -> str:
    time.sleep(payload.get("seconds", 0.1))
    return "slept"


@job("hang", timeout=0.3, max_attempts=1)
async def hang(payload: dict) -> None:
    await asyncio.sleep(3600)


@job("snooze")
async def snooze(payload: dict, ctx: Context) -> Snooze | None:
    path = payload["path"]
    if not os.path.exists(path):
        open(path, "w").close()
        return Snooze(payload.get("seconds", 0.05))
    return None


@job("cancel")
async def cancel(payload: dict) -> Cancel:
    return Cancel("not needed any more")


@job("discard")
async def discard(payload: dict) -> None:
    raise Discard("of no use")


@job("spawn")
async def spawn(payload: dict, ctx: Context) -> str:
    return str(await ctx.enqueue("echo", {"from": str(ctx.job_id)}))


@job("die")
async def die(payload: dict) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@job("record")
async def record(payload: dict, ctx: Context) -> None:
    """Writes a line when it begins and one when it ends: what a job's effects look like from outside."""
    with open(payload["path"], "ab", buffering=0) as file:
        file.write(f"begin {ctx.job_id} {ctx.attempt}\n".encode())
        await asyncio.sleep(payload.get("seconds", 0.05))
        file.write(f"end {ctx.job_id} {ctx.attempt}\n".encode())
