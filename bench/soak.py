"""Half of the peak for a long time, with a kill -9 each minute: what grows, and whether a job was lost.

The peak is what one process takes in by bulk and runs at once, measured first. Each request carries its number in its jobs'
payloads, so in the end SQL tells for each whether all of its jobs were completed. Exit status 1: one was not.

Each line tells how long a fixed piece of Python took, too: what takes time may grow by as much as the machine became slower.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import operator
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.client import Client, post_bulk
from bench.database import Database
from bench.figures import Figures, percentile, spread, steadiness
from bench.instance import Instance, instance
from bench.machine import machine

BULK = 100
SENDERS = 8  # connections
PATIENCE = 120.0  # seconds without any ending, after which what is left counts as lost
SLACK = 0.25  # how much worse the last third may be than the first
CATCH_UP = 10.0  # seconds after a kill in which requests are answered late because others waited, too
# What a line tells, and a difference too small to mean anything.
TOLD = {
    "rate": 0.0, "p99": 10.0, "worst": 50.0, "back": 0.2, "memory": 10.0, "dead": 20_000.0, "live": 20.0, "backlog": 2_000.0,
}  # fmt: skip
TIMES = ("p99", "worst", "back")
STATE = """
SELECT (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables)::float8 AS dead,
       (SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname IN ('jobs', 'counter_deltas'))::float8 / 1e6 AS live
"""
# What became of the jobs of each request: how many there are, and how many are completed.
FATE = """
SELECT json_object_agg(request, completed) FROM (
  SELECT payload ->> 'request' AS request, count(*) FILTER (WHERE completed) AS completed
  FROM (SELECT payload, true AS completed FROM jobs_done UNION ALL SELECT payload, false FROM jobs) every
  WHERE payload ? 'request' GROUP BY 1) fate
"""


@dataclass
class Sent:
    """Requests by number. ``answers``: since the last line, when each was asked (perf_counter) and after how many seconds it
    was answered."""

    accepted: set[int] = field(default_factory=set)
    unanswered: set[int] = field(default_factory=set)
    answers: list[tuple[float, float]] = field(default_factory=list)


class Sender(threading.Thread):
    """Sends requests of ``BULK`` jobs at fixed times, ``rate`` jobs per second, until it is told to stop."""

    def __init__(self, port: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.sent = Sent()
        self._port, self._gap = port, BULK / rate
        self._told_to_stop = threading.Event()

    def stop(self) -> None:
        self._told_to_stop.set()
        self.join()

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        began, numbers = time.monotonic(), itertools.count()
        await asyncio.gather(*(self._connection(began, numbers) for _ in range(SENDERS)))

    async def _connection(self, began: float, numbers: Iterator[int]) -> None:
        client = Client(self._port)
        while not self._told_to_stop.is_set():
            number = next(numbers)
            await asyncio.sleep(began + number * self._gap - time.monotonic())
            await self._ask(client, number)
        client.close()

    async def _ask(self, client: Client, number: int) -> None:
        request, asked = post_bulk(BULK, payload={"request": number}), time.perf_counter()
        while True:
            try:
                answer = await client.ask(request)
            except ConnectionRefusedError:  # it starts again; nothing was sent
                if self._told_to_stop.is_set():
                    return
                await asyncio.sleep(0.02)
                asked = time.perf_counter()
                continue
            except (OSError, EOFError):
                self.sent.unanswered.add(number)  # its jobs may be there all the same, so it is never sent again
                return
            if answer.status == 201:
                self.sent.accepted.add(number)
                self.sent.answers.append((asked, time.perf_counter() - asked))
            else:
                self.sent.unanswered.add(number)
            return


def soak(app: Instance, sender: Sender, rounds: int, every: float) -> list[Figures]:
    """A line each round, just before the kill: the memory is that of a process that has worked for as long."""
    lines, began, killed = [], time.monotonic(), 0.0
    for number in range(1, rounds + 1):
        before, at = app.database.completed(), time.monotonic()
        time.sleep(max(began + number * every - at, 0))
        app.app.check()
        lines.append(line(app, sender.sent, number, before, time.monotonic() - at, killed))
        if number < rounds:
            killed = time.perf_counter()
            app.app.kill()
            app.app.start()
    return lines


def line(app: Instance, sent: Sent, number: int, before: int, seconds: float, killed: float) -> Figures:
    """What the last round was like, which began with a kill, if it did. Prints it."""
    answers, sent.answers = sent.answers, []
    completed = app.database.completed()
    figures: Figures = {
        "rate": (completed - before) / seconds,
        "p99": p99(took for asked, took in answers if asked > killed + CATCH_UP),
        "worst": p99(took for _, took in answers),
        "back": min((asked + took - killed for asked, took in answers if asked + took > killed > 0), default=0.0),
        "memory": app.memory(),
        "backlog": float(app.database.accepted() - completed),
        "spin": steadiness()[0],
        **app.database.row(STATE),
    }
    print(
        f"{number:3}: {figures['rate']:7,.0f} jobs/s   POST p99 {figures['p99']:5.1f} ms, with the kill {figures['worst']:6.1f}, "
        f"first answer after {figures['back']:4.2f} s   RSS {figures['memory']:4.0f} MB   "
        f"dead tuples {figures['dead']:8,.0f}   live tables {figures['live']:5.0f} MB   backlog {figures['backlog']:7,.0f}   "
        f"unanswered {len(sent.unanswered):3}   machine {figures['spin']:4.1f} ms",
        flush=True,
    )
    return figures


def p99(seconds: Iterable[float]) -> float:
    """In ms; 0 of nothing."""
    ordered = sorted(seconds)
    return percentile(ordered, 0.99) * 1e3 if ordered else 0.0


def settle(app: Instance) -> None:
    """Wait until everything has ended, or until nothing ends any more."""
    least, moved = float("inf"), time.monotonic()
    while (left := app.database.accepted() - app.database.completed()) and time.monotonic() < moved + PATIENCE:
        app.app.check()
        if left < least:
            least, moved = left, time.monotonic()
        time.sleep(0.5)


def lost(database: Database, sent: Sent) -> list[str]:
    """Sentences about requests whose jobs are not all completed, by what the tables hold."""
    fate = {int(number): completed for number, completed in database.json(FATE).items()}
    sentences = [
        f"request {number} was accepted, and {fate.get(number, 0)} of its {BULK} jobs are completed"
        for number in sorted(sent.accepted)
        if fate.get(number, 0) != BULK
    ]
    sentences += [
        f"request {number} was not answered, and {fate[number]} of its {BULK} jobs are completed, neither all nor none"
        for number in sorted(sent.unanswered)
        if fate.get(number, 0) not in (0, BULK)
    ]
    unknown = len(fate.keys() - sent.accepted - sent.unanswered)
    return [*sentences, *([f"{unknown} requests are there that were never sent"] if unknown else [])]


def growing(lines: Sequence[Figures]) -> list[str]:
    """What was worse in the last third than in the first, by more than the machine was."""
    third = len(lines) // 3
    parts = lines[1 : 1 + third], lines[-third:]  # the first round did not begin with a kill
    slower = max(operator.truediv(*(spread(each["spin"] for each in part).median for part in parts[::-1])), 1.0)
    worse = []
    for name, least in TOLD.items():
        first, last = (spread(each[name] for each in part).median for part in parts)
        fair = first * slower if name in TIMES else first
        change = first - last if name == "rate" else last - fair
        if change > SLACK * fair + least:
            worse.append(
                f"{name}: {first:,.1f} in the first third, {last:,.1f} in the last, the machine {slower:.2f} times slower"
            )
    return worse


def add_command(commands: Any) -> None:
    parser = commands.add_parser("soak", help=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long (default 30)")
    parser.add_argument("--every", type=float, default=60, help="seconds between two kills (default 60)")
    parser.add_argument("--rate", type=float, help="jobs per second (default: half of the peak, measured first)")
    parser.add_argument("--data", help="folder for the servers' data; half a gigabyte for each million jobs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    rounds = max(round(args.minutes * 60 / args.every), 1)
    with machine(args.data) as machine_, instance(machine_, WORKER_CONCURRENCY=500) as app:
        print(machine_.describe())
        app.release()
        rate = args.rate or app.posted(jobs=60_000, connections=4, bulk=BULK)["rate"] / 2
        print(f"{rate:,.0f} jobs/s for {args.minutes:g} minutes, a kill -9 every {args.every:g} s", flush=True)
        sender = Sender(app.app.port, rate)
        sender.start()
        lines = soak(app, sender, rounds, args.every)
        sender.stop()
        settle(app)
        sentences = lost(app.database, sender.sent)
    worse = growing(lines) if rounds >= 3 else []
    print(*(f"GREW {sentence}" for sentence in worse), *(f"LOST {sentence}" for sentence in sentences[:20]), sep="\n")
    accepted, unanswered = len(sender.sent.accepted) * BULK, len(sender.sent.unanswered)
    flat = "not looked at, it was too short" if rounds < 3 else "not flat" if worse else "flat"
    print(f"{accepted:,} jobs accepted, {len(sentences)} requests lost some, {unanswered} unanswered; figures: {flat}")
    sys.exit(1 if sentences else 0)
