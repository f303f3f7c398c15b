"""What the processes under test run. Every execution leaves a line in a file of its process: the effects, outside Jobflow.

A line is written by one ``write`` to a file opened for appending, so it survives a kill -9 of its process.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

from jobflow import Context, job


@functools.cache
def folder() -> Path:
    return Path(os.environ["CHAOS_EFFECTS"])


@functools.cache
def effects() -> int:
    return os.open(folder() / f"{os.getpid()}.effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def leave(ctx: Context) -> None:
    os.write(effects(), f"{ctx.job_id} {ctx.attempt} {time.time():.3f} {ctx.type}\n".encode())


@job("chaos.note")
async def note(payload: dict[str, Any], ctx: Context) -> dict[str, int]:
    leave(ctx)
    return {"n": payload["n"]}


@job("chaos.nap")
async def nap(payload: dict[str, Any], ctx: Context) -> None:
    leave(ctx)
    await asyncio.sleep(payload["seconds"])


@job("chaos.thread")
def thread(payload: dict[str, Any], ctx: Context) -> None:
    leave(ctx)
    time.sleep(payload["seconds"])


@job("chaos.fail", backoff=lambda attempt: 0.2)
async def fail(payload: dict[str, Any], ctx: Context) -> None:
    leave(ctx)
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")


@job("chaos.block")
async def block(payload: dict[str, Any], ctx: Context) -> None:
    """Computes; nothing else of its process's event loop moves."""
    leave(ctx)
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        sum(range(1_000))


@job("chaos.stubborn", timeout=1, max_attempts=1)
async def stubborn(payload: dict[str, Any], ctx: Context) -> None:
    """Goes on whatever it is told."""
    leave(ctx)
    end = time.monotonic() + payload["seconds"]
    while (left := end - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


@job("chaos.suicide")
async def suicide(payload: dict[str, Any], ctx: Context) -> None:
    """Ends its process, as often as ``deaths`` says."""
    leave(ctx)
    with (folder() / f"suicide-{ctx.job_id}").open("ab") as file:
        if file.tell() >= payload["deaths"]:
            return
        file.write(b".")
    await asyncio.sleep(0.3)  # jobs that were claimed with it get going
    if payload["how"] == "exit":
        os._exit(9)
    os.kill(os.getpid(), signal.SIGKILL)
