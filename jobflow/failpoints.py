"""Points between two steps at which a test kills this process, hurts or delays it; off unless JOBFLOW_FAILPOINTS is set.

A crash between any two steps must lose no job and accept none twice. A test runs for each point that stands here.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable

from jobflow.errors import SettingsError

POINTS = {
    "enqueue.committed": "jobs of plain requests are committed; nobody was answered, Redis does not know",
    "keyed.locked": "the keys of a batch are locked, nothing was looked up",
    "keyed.inserted": "jobs and keys are written, not committed",
    "keyed.committed": "jobs and keys are committed; nobody was answered, Redis does not know",
    "push.taken": "committed jobs are taken to be pushed, Redis does not know them",
    "push.pushed": "Redis knows them, nobody was woken",
    "claim.popped": "ids left Redis, their rows are not claimed",
    "claim.committed": "rows are claimed, no handler has begun",
    "fallback.found": "without Redis: rows are locked, not claimed",
    "fallback.claimed": "without Redis: rows are claimed, not committed",
    "complete.ended": "handlers have ended, nothing is written",
    "complete.committed": "successes are written, the other endings are not",
    "complete.failed": "the other endings are written; Redis does not know what runs again",
    "complete.written": "all endings are written and pushed, their slots are not free",
    "rescue.marked": "processes are marked lost, their runs are not looked for",
    "rescue.found": "lost runs are found, nothing is written",
    "rescue.committed": "lost jobs may run again, Redis does not know",
    "refill.asked": "a lane is to be filled and its lease in Redis is taken, nothing was read",
    "refill.read": "a page was read, the lane is not filled",
    "refill.filled": "the lane is filled and perhaps open, the second read is to come",
    "refill.read_again": "the second read is done, its rows are not pushed",
    "sweep.read": "overdue rows are read, not pushed",
    "sweep.pushed": "overdue rows are pushed, the cursor stands where it stood",
    "drain.stopped": "claiming has stopped, running jobs go on",
    "drain.written": "what ran is written or handed back, the process does not say yet that it has stopped",
}

Reach = Callable[[str], Awaitable[None]]


class Reached(Exception):
    """What the action ``raise`` raises."""


async def _off(point: str) -> None:
    pass


reach: Reach = _off
"""Pass a point: always as ``failpoints.reach``, the name that ``arm`` replaces.

Costs one call of an empty coroutine while off, so it stands once per batch, never once per job.
"""


def parse(text: str) -> dict[str, tuple[str, float, int]]:
    """Read JOBFLOW_FAILPOINTS: ``point=action``, separated by commas; actions kill, raise, sleep:SECONDS; ``@n``: the nth
    passing only.

    Returns action, seconds and n (0: every passing) by point. Raises SettingsError, which names what is unknown.
    """
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        point, _, action = part.partition("=")
        if point not in POINTS:
            raise SettingsError(
                f"JOBFLOW_FAILPOINTS is wrong: there is no point {point!r}; there are {', '.join(POINTS)}."
            )
        match = re.fullmatch(r"(kill|raise|sleep:(\d+(?:\.\d+)?))(?:@([1-9]\d*))?", action)
        if match is None:
            raise SettingsError(
                f"JOBFLOW_FAILPOINTS is wrong: {action!r} of {point} is no action; "
                "there are kill, raise and sleep:SECONDS, with @n for the nth passing only."
            )
        found[point] = (match[1].partition(":")[0], float(match[2] or 0), int(match[3] or 0))
    return found


def arm(text: str) -> None:
    """Turn on the points that ``text`` names, and off all others. Raises as ``parse``."""
    global reach
    plan = parse(text)
    reach = _armed(plan) if plan else _off


def _armed(plan: dict[str, tuple[str, float, int]]) -> Reach:
    passed = dict.fromkeys(plan, 0)

    async def reach(point: str) -> None:
        if point not in plan:
            return
        action, seconds, nth = plan[point]
        passed[point] += 1
        if nth and passed[point] != nth:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise Reached(point)
        await asyncio.sleep(seconds)

    return reach
