"""Waiting for what happens, with a bound, instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
FINAL = {"completed", "dead_letter", "cancelled"}


async def until(question: Callable[[], Awaitable[T]], holds: Callable[[T], Any] = bool, *, seconds: float = 20.0) -> T:
    """Ask again and again until the answer holds. Raises AssertionError with the last answer after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await question()
        if holds(answer):
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s it is still {answer!r}")
        await asyncio.sleep(0.02)


async def final(http: httpx.AsyncClient, job_id: str, *, seconds: float = 20.0) -> dict[str, Any]:
    """The job once it has ended for good."""

    async def ask() -> dict[str, Any]:
        answer: dict[str, Any] = (await http.get(f"/jobs/{job_id}")).json()
        return answer

    return await until(ask, lambda job: job["status"] in FINAL, seconds=seconds)
