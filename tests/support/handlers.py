"""Handlers of the applications under test."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from jobflow import Cancel, Context, Discard, Snooze, job
from jobflow.pool import sqlalchemy_url


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
    if payload.get("how") == "exit":
        os._exit(9)
    if payload.get("how") == "hoard":
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))
    os.kill(os.getpid(), signal.SIGKILL)


@job("record")
async def record(payload: dict, ctx: Context) -> None:
    """Writes a line when it begins and one when it ends: what a job's effects look like from outside."""
    with open(payload["path"], "ab", buffering=0) as file:
        file.write(f"begin {ctx.job_id} {ctx.attempt}\n".encode())
        await asyncio.sleep(payload.get("seconds", 0.05))
        file.write(f"end {ctx.job_id} {ctx.attempt}\n".encode())


@job("pay")
async def pay(payload: dict, ctx: Context) -> None:
    """Commits its effect and its completion together; the first time it dies just ``before`` or ``after`` that."""
    first = not os.path.exists(payload["path"])
    open(payload["path"], "w").close()
    async with create_async_engine(sqlalchemy_url(os.environ["DATABASE_URL"])).connect() as connection:
        await connection.execute(text("INSERT INTO effects VALUES (:id)"), {"id": str(ctx.job_id)})
        await ctx.complete_in(connection)
        if not (first and payload["dies"] == "before"):
            await connection.commit()
        if first:
            os.kill(os.getpid(), signal.SIGKILL)


@job("block")
async def block(payload: dict, ctx: Context) -> None:
    """Holds the loop; with ``gil``, in the first run, no thread of the process runs either, as in a careless C extension."""
    again = os.path.exists(payload["path"])
    with open(payload["path"], "ab", buffering=0) as file:
        file.write(f"begin {ctx.job_id} {ctx.attempt}\n".encode())
        if payload.get("gil") and again:
            pass
        elif payload.get("gil"):
            ctypes.PyDLL(None).usleep(int(payload["seconds"] * 1e6))
        else:
            end = time.monotonic() + payload["seconds"]
            while time.monotonic() < end:
                pass
        file.write(f"end {ctx.job_id} {ctx.attempt}\n".encode())


@job("tidy")
async def tidy(payload: dict) -> None:
    """Takes its time to stop."""
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.5)


@job("stubborn", timeout=0.3, max_attempts=1)
async def stubborn(payload: dict) -> None:
    """Does not let itself be cancelled."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ODD: dict[str, Callable[[], Any]] = {
    "nul": lambda: "a\x00b",
    "surrogate": lambda: "a\ud800b",
    "not a number": lambda: float("nan"),
    "infinite": lambda: [float("inf")],
    "a key with nul": lambda: {"\x00": 1},
    "very large": lambda: "x" * 100_000_000,
    "very deep": lambda: nested(100_000),
    "no JSON": object,
    "bytes": lambda: b"\xff",
    "a huge integer": lambda: 10**5000,
}


@job("odd", max_attempts=1)
async def odd(payload: dict) -> Any:
    """Returns what cannot be stored, or raises it."""
    value = ODD[payload["value"]]()
    if payload.get("raises"):
        raise ValueError(f"{value} " + "y" * 1_000_000 if isinstance(value, str) else value)
    return value
