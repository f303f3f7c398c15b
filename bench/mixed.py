"""Lists as people really ask for them: any filters together, any page, drawn from a seed, on tables made to mislead.

Live jobs are of every status, queue and type, most of them waiting, and the oldest ones are needles: few, with a queue, type
and tag of their own, so that whoever walks along the newest jobs reads all the others first.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from bench import rows
from bench.client import HTML, Client, get
from bench.machine import execute
from jobflow.lifecycle import Status
from jobflow.web.query import OFFSET_MAX

NEEDLES = 20
LIVE = f"""
INSERT INTO jobs (id, owner, queue, type, priority, status, max_attempts, attempt, run_at, timeout, created_at, updated_at, tags,
                  payload, error_type, error_message, finished_at, locked_by, started_at)
SELECT {rows.ID.format(ms="ms", n="n")}, 0, CASE n % 5 WHEN 0 THEN 'default' ELSE 'q' || n % 5 END,
       CASE n % 7 WHEN 0 THEN 'noop' ELSE 'type.' || n % 7 END, n % 10, status, 5, 1,
       now() + CASE WHEN status IN ('scheduled', 'failed') THEN interval '1 day' ELSE interval '0' END, 300, t, t,
       CASE WHEN n % 100 = 0 THEN '{{{{red}}}}'::text[] WHEN n % 100 = 1 THEN ARRAY['customer:' || n % 5000] ELSE '{{{{}}}}' END,
       jsonb_build_object('user', n % 1000), CASE WHEN status IN ('failed', 'dead_letter') THEN 'ValueError' END,
       'something ' || n % 50, CASE WHEN status IN ('dead_letter', 'cancelled') THEN now() END,
       CASE WHEN status = 'processing' THEN '00000000-0000-7000-8000-000000000001'::uuid END,
       CASE WHEN status = 'processing' THEN now() END
FROM generate_series({{first}}, {{last}}) AS g (n), LATERAL (SELECT {{now}} - {{waiting}} + n AS ms) m,
     LATERAL (SELECT to_timestamp(ms / 1000.0) AS t) c,
     LATERAL (SELECT CASE WHEN n % 1000 = 500 THEN 'processing' WHEN n % 10 < 6 THEN 'pending' WHEN n % 10 < 9 THEN 'scheduled'
                     ELSE (ARRAY['failed', 'dead_letter', 'cancelled'])[1 + n / 10 % 3] END AS status) s
"""
NEEDLE = f"""
INSERT INTO jobs (id, queue, type, priority, status, max_attempts, run_at, timeout, created_at, updated_at, tags, payload)
SELECT {rows.ID.format(ms="ms", n="n")}, 'rare', 'rare', 5, 'pending', 5, now(), 300, t, t, '{{{{rare}}}}', '{{{{}}}}'
FROM generate_series(1, {NEEDLES}) AS g (n), LATERAL (SELECT {{now}} - {{waiting}} - 1000 + n AS ms) m,
     LATERAL (SELECT to_timestamp(ms / 1000.0) AS t) c
"""

STATUSES = [status.value for status in Status]
QUEUES = ["default", "q1", "q2", "q3", "q4", "rare", "none"]
TYPES = ["noop", *(f"type.{n}" for n in range(1, 7)), "rare", "none"]
TAGS = ["red", "customer:101", "rare", "none"]
# Filters that come together, and how often.
KINDS: dict[tuple[str, ...], int] = {
    (): 2, ("status",): 3, ("queue",): 2, ("type",): 2, ("tag",): 2, ("time",): 2, ("status", "status"): 1,
    ("status", "queue"): 2, ("status", "type"): 2, ("queue", "type"): 3, ("status", "queue", "type"): 2, ("status", "tag"): 1,
    ("queue", "tag"): 1, ("type", "tag"): 1, ("time", "status"): 1, ("time", "queue"): 1, ("time", "type"): 1,
    ("time", "tag"): 1, ("time", "status", "queue", "type", "tag"): 1,
}  # fmt: skip
SEARCHES: dict[tuple[str, ...], int] = {
    ("error",): 1, ("payload",): 1, ("queue", "error"): 1, ("type", "payload"): 1, ("status", "error"): 1, ("tag", "payload"): 1,
    ("time", "error"): 1,
}  # fmt: skip


class Ask(NamedTuple):
    kind: str
    page: str  # first, next, offset
    path: str  # with the query
    html: bool


def add_live(url: str, waiting: int) -> None:
    """``waiting`` jobs that are not completed, and the needles. Counters agree with them. No process must run jobs there."""
    now = int(time.time() * 1000)
    rows.insert(url, LIVE, waiting, now=now, waiting=waiting)
    names = ", ".join(f"('{name}')" for name in QUEUES[:-1])
    queues = f"INSERT INTO queues (name) VALUES {names} ON CONFLICT DO NOTHING"
    needle = NEEDLE.format(now=now, waiting=waiting)
    asyncio.run(execute(url, queues, needle, rows.COUNT_OPEN, "VACUUM (ANALYZE) jobs"))


def draw(seed: int, count: int, kinds: dict[tuple[str, ...], int], *, days: int) -> list[Ask]:
    """The same requests for the same seed but for the clock. days: over which jobs were created."""
    rng = random.Random(seed)
    asks = []
    for names in rng.choices(list(kinds), list(kinds.values()), k=count):
        query = [pair for name in names for pair in _filter(rng, name, days)]
        page = rng.choices(["first", "next", "offset"], [6, 3, 1])[0]
        if page == "offset":
            query.append(("offset", str(rng.randrange(OFFSET_MAX))))
        html = rng.random() < 0.5
        path = ("/dashboard/jobs" if html and page != "offset" else "/jobs") + (f"?{urlencode(query)}" if query else "")
        asks.append(Ask(" + ".join(names) or "no filter", page, path, html and page != "offset"))
    return asks


def _filter(rng: random.Random, name: str, days: int) -> list[tuple[str, str]]:
    choices = {"status": STATUSES, "queue": QUEUES, "type": TYPES, "tag": TAGS}
    if name in choices:
        return [(name, rng.choice(choices[name]))]
    if name == "error":
        return [(name, rng.choice(["value", "something 7", "nowhere"]))]
    if name == "payload":
        return [("payload.user", str(rng.randrange(2_000)))]
    ends = sorted(datetime.now(UTC) - timedelta(days=days * rng.random() ** 2) for _ in range(2))
    pairs = [("created_after", ends[0].isoformat()), ("created_before", ends[1].isoformat())]
    return rng.choice([pairs, pairs[:1], pairs[1:]])


async def ask_all(port: int, asks: Sequence[Ask], cookie: str) -> dict[str, list[float]]:
    """Milliseconds of each answer, by kind. A next page is asked for by the cursor of the page before it."""
    client = Client(port)
    taken: dict[str, list[float]] = {}
    for ask in asks:
        path = ask.path
        if ask.page == "next":
            cursor = await _cursor(client, path.replace("/dashboard/jobs", "/jobs"))
            path += ("&" if "?" in path else "?") + f"cursor={cursor}" if cursor else ""
        request = get(path, f"{HTML if ask.html else ''}Cookie: {cookie}\r\n")
        began = time.perf_counter()
        answer = await client.ask(request)
        spent = (time.perf_counter() - began) * 1e3
        narrow = answer.status == 422 and ("error" in ask.kind or "payload" in ask.kind)
        if answer.status not in (200, 303) and not narrow:
            raise SystemExit(f"{path}: {answer.head.decode()}{answer.body[:500].decode()}")
        taken.setdefault(ask.kind + (", far down" if ask.page == "offset" else ""), []).append(spent)
    client.close()
    return taken


async def _cursor(client: Client, path: str) -> str | None:
    answer = await client.ask(get(path))
    found: str | None = json.loads(answer.body)["next_cursor"] if answer.status == 200 else None
    return found
