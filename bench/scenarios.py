"""What `make bench` measures: each scenario, the lines it has in the table, and the bars they are held to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bench.drains import bare, drain
from bench.figures import Figures
from bench.machine import Machine
from bench.peak import peak
from bench.posts import BULK, CONNECTIONS, bulk, idle, inserts, naps, single, steady

NAPS, NAP_SLOTS = 2_000, 100
UNBOUND = 10**9
BARE = ("bare500", "bare")  # the ceilings of a drain


class Line(NamedTuple):
    """A line of the table: the figure of a scenario that ``key`` names.

    at_least, at_most: the bar. ceilings: scenarios whose rate of the same round this one is a share of; least_share,
    most_share: the bar for the first of them.
    """

    title: str
    key: str = "rate"
    unit: str = "jobs/s"
    at_least: float | None = None
    at_most: float | None = None
    ceilings: tuple[str, ...] = ()
    least_share: float | None = None
    most_share: float | None = None


class Scenario(NamedTuple):
    """``run`` measures ``jobs`` jobs once."""

    name: str
    jobs: int
    run: Callable[[Machine, int], Figures]
    lines: tuple[Line, ...]


def scenarios(jobs: int) -> list[Scenario]:
    """All of them, for ``jobs`` jobs in one drain; what is slower gets fewer, what needs a while gets more."""
    return [*drains(jobs), *posts(jobs), *waits(jobs)]


def drains(jobs: int) -> list[Scenario]:
    some, fewer, few = max(jobs // 3, 300), max(jobs // 6, 300), max(jobs // 20, 100)
    best = Line("drain, 500 at once", at_least=30_000, ceilings=BARE, least_share=0.65)
    return [
        Scenario("drain", jobs, drain, (best,)),
        Scenario("bare500", jobs, partial(bare, slots=500), (Line("  ceiling: bare loop, 500 at once"),)),
        Scenario("bare", jobs, partial(bare, slots=UNBOUND), (Line("  ceiling: bare loop, no bound"),)),
        Scenario(
            "drain50", jobs, partial(drain, concurrency=50), (Line("drain, 50 at once (the default)", ceilings=BARE),)
        ),
        Scenario("payload", fewer, partial(drain, padding=10_000), (Line("payloads of 10 KB", ceilings=BARE),)),
        Scenario("compute", few, partial(drain, type="compute"), (Line("handlers of 1 ms of processor time"),)),
        Scenario("threads", some, partial(drain, type="thread"), (Line("handlers in threads", ceilings=BARE),)),
        Scenario("retries", some, partial(drain, type="flaky"), (Line("three in ten fail once", ceilings=BARE),)),
        Scenario("no-redis", some, partial(drain, redis=False), (Line("with Redis stopped", ceilings=BARE),)),
    ]


def posts(jobs: int) -> list[Scenario]:
    many, some = max(jobs // BULK, 4) * BULK, max(jobs // 6, 300)
    singles = [Line(f"POST /jobs, {n} connections", f"rate_{n}") for n in CONNECTIONS]
    singles[2] = singles[2]._replace(at_least=7_000, ceilings=("inserts64",))
    answers = [
        Line("  64 connections, answer p50", "p50_64", "ms"),
        Line("  64 connections, answer p99", "p99_64", "ms"),
    ]
    in_bulk = Line("POST /jobs/bulk, 1,000 each", at_least=60_000, ceilings=("inserts",))
    return [
        Scenario("single", some, single, (*singles, *answers)),
        Scenario(
            "inserts64",
            some,
            partial(inserts, batch=64, connections=1),
            (Line("  ceiling: bare INSERT, 64 rows each"),),
        ),
        Scenario("bulk", many, bulk, (in_bulk,)),
        Scenario(
            "inserts",
            many,
            partial(inserts, batch=BULK, connections=4),
            (Line("  ceiling: bare INSERT, 1,000 rows each"),),
        ),
        Scenario(
            "steady",
            many * 2 // 3,
            partial(steady, connections=4, bulk=100),
            (Line("bulk of 100 in, jobs done out", at_least=10_000),),
        ),
        Scenario(
            "steady1",
            some,
            partial(steady, connections=64),
            (Line("each in by its own POST, jobs done out", at_least=3_000),),
        ),
    ]


def waits(jobs: int) -> list[Scenario]:
    lasting = 2 * jobs
    return [
        Scenario(
            "idle",
            300,
            idle,
            (
                Line("idle: POST to handler start, p50", "p50", "ms", at_most=3),
                Line("idle: POST to handler start, p99", "p99", "ms", at_most=10),
            ),
        ),
        Scenario(
            "naps",
            NAPS,
            partial(naps, concurrency=NAP_SLOTS),
            (Line(f"{NAPS:,} jobs of 100 ms, {NAP_SLOTS} at once", "seconds", "s", at_most=2.2),),
        ),
        Scenario(
            "peak",
            lasting,
            peak,
            (
                Line("during a drain: POST /jobs, p99", "posts_p99", "ms", at_most=150),
                Line("during a drain: pages, p99", "pages_p99", "ms", at_most=150),
                Line("during a drain: event loop late, p99", "lag_p99", "ms", at_most=20),
                Line("during a drain: event loop late, at most", "lag_most", "ms"),
                Line("during a drain: a step of the engine, processor, at most", "steps_busy", "ms", at_most=5),
                Line("during a drain: the same by the clock", "steps_most", "ms"),
                Line("during a drain: its own rate"),
            ),
        ),
    ]
