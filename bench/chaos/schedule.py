"""Which faults happen when, to whom and for how long: decided before the run, by a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LEASE = 15.0  # seconds: Jobflow's default, for which the lengths below are meant


class Kind(NamedTuple):
    """What a fault hurts, how long it lasts (seconds), how long what it hurts is left alone then, how often it comes."""

    hurts: (
        str  # app: one of them · apps: one after the other, all · postgres, redis: the server · nothing that is taken
    )
    shortest: float
    longest: float
    rest: float
    weight: int
    about: str


KINDS = {
    "kill": Kind("app", 0.3, 3, 6, 6, "kill -9 of a process, which is started again"),
    "pause": Kind("app", 17, 22, 2, 3, "SIGSTOP for longer than the lease, then SIGCONT"),
    "restart": Kind("app", 0.3, 1, 12, 3, "SIGTERM, and started again when it has ended"),
    "rolling": Kind("apps", 0.3, 0.3, 45, 1, "SIGTERM and start of every process, one after the other"),
    "flush": Kind("redis", 0, 0, 0.5, 4, "FLUSHALL"),
    "redis-kill": Kind("redis", 0.3, 2, 1, 3, "kill -9 of Redis, which comes back empty"),
    "redis-away": Kind("redis", 8, 10, 1, 2, "Redis shut down, back after ten seconds"),
    "redis-freeze": Kind("redis", 5, 10, 1, 2, "SIGSTOP of Redis: connections stay open, nothing answers"),
    "readonly": Kind("redis", 2, 6, 1, 2, "Redis becomes a replica: every write is refused"),
    "oom": Kind("redis", 2, 6, 1, 2, "Redis has no memory left: every script is refused"),
    "script-flush": Kind("redis", 0, 0, 0.5, 2, "SCRIPT FLUSH, and every client is disconnected"),
    "pg-crash": Kind("postgres", 0, 0.5, 4, 3, "immediate shutdown of Postgres: what was not flushed is forgotten"),
    "pg-kill": Kind("postgres", 0, 0, 4, 2, "kill -9 of one backend: Postgres restarts them all"),
    "pg-away": Kind("postgres", 1, 6, 4, 2, "Postgres shut down, back after seconds"),
    "pg-freeze": Kind("postgres", 2, 8, 4, 2, "SIGSTOP of Postgres: connections stay open, nothing answers"),
    "pg-freeze-long": Kind("postgres", 18, 22, 8, 1, "the same for longer than the lease"),
    "backends": Kind("postgres", 0, 0, 2, 3, "pg_terminate_backend of every connection"),
    "delay": Kind("app", 4, 8, 1, 3, "every answer of both servers to one process comes late"),
    "cut": Kind("app", 0, 0, 1, 4, "every connection of one process is reset"),
    "isolate": Kind("app", 17, 22, 3, 2, "one process does not reach Postgres for longer than the lease"),
    "lost-enqueue": Kind("", 0, 1, 0, 6, "the answer to a COMMIT of new jobs is lost"),
    "lost-claim": Kind("", 0, 1, 0, 6, "the answer to a claim is lost"),
    "lost-completion": Kind("", 0, 1, 0, 6, "the answer to a batch of successes is lost"),
    "lost-pop": Kind("", 0, 0, 0, 3, "the answer to a pop from Redis is lost, with the ids in it"),
    "block": Kind("", 3, 20, 0, 4, "a handler computes and does not let go of the event loop"),
    "stubborn": Kind("", 14, 20, 0, 3, "a handler swallows its cancellation"),
    "suicide": Kind("", 1, 1, 0, 4, "a handler kills its process"),
}


class Fault(NamedTuple):
    """at: seconds after the beginning. victim: number of a process. seconds: how long it lasts. draw: 0 to 1, for variants."""

    at: float
    kind: str
    victim: int
    seconds: float
    draw: float

    def __str__(self) -> str:
        return f"{self.at:8.2f} s  {self.kind:16} process {self.victim}  {self.seconds:5.2f} s  {self.draw:.3f}"


def plan(
    seed: int, *, minutes: float, interval: float, apps: int, lease: float = LEASE, kinds: Sequence[str] = tuple(KINDS)
) -> list[Fault]:
    """The same faults, victims, order and times for the same arguments.

    interval: seconds from one fault to the next, on average. lease: lengths are scaled with it.
    What is hurt already is left alone, and half of the processes at least are. The first of each kind come early.
    """
    chance = random.Random(seed)
    cards = deck(chance, kinds)
    waiting: list[str] = []  # drawn, but what they hurt was taken
    free = dict.fromkeys((*range(apps), "postgres", "redis"), 0.0)  # when each may be hurt again
    scale = min(lease / LEASE, 1.0)
    faults: list[Fault] = []
    for number in range(int(minutes * 60 / interval)):
        at = (number + chance.random()) * interval
        while True:
            kind = next((k for k in waiting if _possible(KINDS[k], free, at, apps)), None)
            if kind is not None:
                waiting.remove(kind)
                break
            if len(waiting) > 3 * len(kinds):
                break  # everything is hurt already
            waiting.append(next(cards))
        if kind is None:
            continue
        about = KINDS[kind]
        healthy = [app for app in range(apps) if free[app] <= at]
        victim = chance.choice(healthy or list(range(apps)))
        seconds = chance.uniform(about.shortest, about.longest) * scale
        # Starting takes as long with a short lease as with a long one.
        until = at + seconds + about.rest * (1.0 if about.hurts in ("app", "apps") else max(scale, 0.5))
        for taken in {"app": [victim], "apps": range(apps), "postgres": ["postgres"], "redis": ["redis"]}.get(
            about.hurts, []
        ):
            free[taken] = until
        faults.append(Fault(at, kind, victim, seconds, chance.random()))
    return faults


def deck(chance: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    """Each kind once, then again and again as often as its weight says, shuffled each time."""
    cards = list(kinds)
    while True:
        chance.shuffle(cards)
        yield from cards
        cards = [kind for kind in kinds for _ in range(KINDS[kind].weight)]


def _possible(kind: Kind, free: dict[int | str, float], at: float, apps: int) -> bool:
    healthy = sum(free[app] <= at for app in range(apps))
    if kind.hurts == "app":
        return healthy > apps - max(apps // 2, 1)
    if kind.hurts == "apps":
        return healthy == apps
    return kind.hurts == "" or free[kind.hurts] <= at
