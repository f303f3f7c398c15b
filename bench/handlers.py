"""The job type that the benchmarks run: it does nothing, so what is measured is everything around it."""

from __future__ import annotations

from typing import Any

from jobflow import job


@job("noop", max_attempts=5)
async def noop(payload: dict[str, Any]) -> dict[str, bool]:
    return {"ok": True}
