"""The demo job types, loaded unless JOBFLOW_HANDLERS names other modules. A third, ``image.process``, has no handler
on purpose: every attempt fails, and it ends in the dead-letter queue."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from jobflow import Context, job

FAILURE_RATE = 0.3


@job("email.send", max_attempts=5)
async def send_email(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Pretends to send an email: about one second, never fails."""
    await asyncio.sleep(random.uniform(0.8, 1.2))  # noqa: S311  (not a secret)
    ctx.log.info("email sent")
    return {"sent_to": payload.get("to")}


@job("report.generate", max_attempts=5)
async def generate_report(payload: dict[str, Any]) -> dict[str, Any]:
    """Pretends to write a report: two to five seconds, and three times in ten it fails."""
    await asyncio.sleep(random.uniform(2.0, 5.0))  # noqa: S311
    if random.random() < FAILURE_RATE:  # noqa: S311
        raise RuntimeError("the report service gave no answer (the demo fails on purpose, three times in ten)")
    return {"report": payload.get("name"), "pages": random.randint(3, 40)}  # noqa: S311
