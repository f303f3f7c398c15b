#!/usr/bin/env python3
"""Enqueue many jobs over REST and, with --poll, watch them until each is final.

Works with any python3 from 3.9 on: without httpx and rich it starts itself again with the checkout's environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import math
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import httpx
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
except ImportError as error:
    MISSING = error.name
else:
    MISSING = None

EXAMPLES = """\
examples:
  python scripts/load_test.py --count 1000                   a third each of the demo types
  python scripts/load_test.py --count 1000 --poll            and watch until every job is final
  python scripts/load_test.py --count 20000 --bulk --poll    up to 1,000 jobs in each POST
  python scripts/load_test.py --count 50 --type email.send --url http://127.0.0.1:8001

exit status: 0 all is well, 1 a job was left unfinished (--timeout, Ctrl-C), 2 wrong usage or no usable server
"""

DEMO = {
    "email.send": lambda n: {"to": f"user{n}@example.com", "subject": f"Hello {n}"},
    "report.generate": lambda n: {"name": f"Report {n}"},
    "image.process": lambda n: {"url": f"https://example.com/{n}.png"},
}
FINAL = ("completed", "dead_letter", "cancelled")
STATUSES = (*FINAL, "failed", "scheduled", "pending", "processing")

BULK = 1_000  # jobs in one POST /jobs/bulk
PART = 5_000  # jobs under one tag: GET /jobs gives exact totals to 10,000
TRIES = 30  # answers missed or refused with 5xx in a row: about two minutes, then we give up
LINE_EVERY = 5.0  # seconds between two lines where there is no terminal


class RunError(Exception):
    """The run cannot go on; ``str(error)`` is a sentence for a person."""


class Clock:
    """The only place where time passes, so that tests need not wait."""

    def now(self) -> float:
        return time.perf_counter()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Post:
    """One request. Its Idempotency-Key stays the same however often it is sent."""

    path: str
    body: bytes
    jobs: int
    tag: str
    key: str


@dataclass
class Tally:
    """What happened so far."""

    count: int
    tag: str
    accepted: int = 0
    by_tag: Counter[str] = field(default_factory=Counter)  # accepted jobs
    latencies: list[float] = field(default_factory=list)  # seconds, of accepted POSTs
    limited: int = 0  # answers 429
    unavailable: int = 0  # answers 502, 503, 504
    broken: int = 0  # no answer at all
    retries: int = 0
    replayed: int = 0  # retries that found the first try accepted
    began: float = 0.0
    sent: float = 0.0  # when the last job was accepted
    ended: float = 0.0  # when the last job was seen to be final
    all_sent: bool = False
    statuses: dict[str, Counter[str]] = field(default_factory=dict)  # by tag, as last seen

    @property
    def seen(self) -> Counter[str]:
        return sum(self.statuses.values(), Counter())

    @property
    def finished(self) -> int:
        seen = self.seen
        return sum(seen[status] for status in FINAL)


def posts(args: argparse.Namespace, name: str) -> Iterator[Post]:
    """Every request of this run, in order."""
    types = [args.type] if args.type else list(DEMO)
    size = BULK if args.bulk else 1
    for first in range(0, args.count, size):
        tag = f"{name}:{first // PART}"
        jobs = [job(types[n % len(types)], n, tag, args.payload) for n in range(first, min(first + size, args.count))]
        body = {"jobs": jobs} if args.bulk else jobs[0]
        path = "/jobs/bulk" if args.bulk else "/jobs"
        yield Post(path, json.dumps(body).encode(), len(jobs), tag, f"{name}:{first}")


def job(name: str, n: int, tag: str, payload: dict[str, Any] | None) -> dict[str, Any]:
    if payload is None:
        payload = DEMO[name](n) if name in DEMO else {}
    return {"type": name, "payload": payload, "tags": [tag]}


class Sender:
    """Sends POSTs over several connections until each is accepted."""

    def __init__(self, clients: Sequence[httpx.AsyncClient], tally: Tally, clock: Clock, screen: Screen) -> None:
        self._clients = clients
        self._tally = tally
        self._clock = clock
        self._screen = screen
        self._not_before = 0.0  # no POST leaves earlier; a 429 moves it
        self._told = False

    async def send_all(self, todo: Iterator[Post]) -> None:
        tasks = [asyncio.ensure_future(self._connection(client, todo)) for client in self._clients]
        try:
            await asyncio.gather(*tasks)
        finally:
            await stop(tasks)
        self._tally.all_sent = True

    async def _connection(self, client: httpx.AsyncClient, todo: Iterator[Post]) -> None:
        for post in todo:  # one iterator for all connections: each takes what is next
            await self._send(client, post)
            self._screen.update()

    async def _send(self, client: httpx.AsyncClient, post: Post) -> None:
        missed = 0
        while True:
            while (wait := self._not_before - self._clock.now()) > 0:
                await self._clock.sleep(wait)
            began = self._clock.now()
            headers = {"Content-Type": "application/json", "Idempotency-Key": post.key}
            try:
                answer = await client.post(post.path, content=post.body, headers=headers)
            except httpx.TransportError as error:
                self._tally.broken += 1
                missed += 1
                if missed >= TRIES:
                    raise RunError(f"The server stopped answering ({name_of(error)}).") from error
                await self._clock.sleep(backoff(missed))
            else:
                if answer.status_code in (200, 201):
                    self._accept(post, answer, began)
                    return
                if answer.status_code == 429:
                    self._hold(answer)
                else:
                    missed += 1
                    await self._clock.sleep(self._refused(answer, missed))
            self._tally.retries += 1

    def _accept(self, post: Post, answer: httpx.Response, began: float) -> None:
        tally = self._tally
        tally.sent = self._clock.now()
        tally.latencies.append(tally.sent - began)
        tally.accepted += post.jobs
        tally.by_tag[post.tag] += post.jobs
        tally.replayed += answer.headers.get("Idempotency-Replayed") == "true"

    def _hold(self, answer: httpx.Response) -> None:
        self._tally.limited += 1
        self._not_before = max(self._not_before, self._clock.now() + retry_after(answer, 1.0))
        if not self._told:
            self._told = True
            self._screen.say(
                "The server's rate limit slows this run: start the server with a higher RATE_LIMIT_MAX "
                "(for example RATE_LIMIT_MAX=100000 ./dev run) to lift it."
            )

    def _refused(self, answer: httpx.Response, missed: int) -> float:
        """Seconds until the same POST is worth another try."""
        if answer.status_code in (502, 503, 504):
            self._tally.unavailable += 1
        elif not (answer.status_code == 409 and "Retry-After" in answer.headers):  # the first try still runs
            raise RunError(refusal(answer))
        if missed >= TRIES:
            raise RunError(refusal(answer))
        return retry_after(answer, backoff(missed))


class Watcher:
    """Asks for totals by tag and status: a few requests a second, however many jobs there are."""

    def __init__(self, client: httpx.AsyncClient, tally: Tally, clock: Clock, screen: Screen, timeout: float) -> None:
        self._client = client
        self._tally = tally
        self._clock = clock
        self._screen = screen
        self._timeout = timeout

    async def watch(self) -> None:
        """Return when every job is final, or ``timeout`` seconds after the last one was accepted."""
        missed = 0
        while True:
            began = self._clock.now()
            complete = self._tally.all_sent  # read first: what is accepted from here on belongs to the next round
            try:
                await self._count()
            except httpx.TransportError as error:
                missed += 1
                if missed >= TRIES:
                    raise RunError(f"The server stopped answering ({name_of(error)}).") from error
            else:
                missed = 0
            now = self._clock.now()
            self._screen.update()
            if complete and self._tally.finished >= self._tally.accepted:
                self._tally.ended = now
                return
            if complete and now >= self._tally.sent + self._timeout:
                return
            await self._clock.sleep(backoff(missed) if missed else max(0.5, 4 * (now - began)))

    async def _count(self) -> None:
        for tag, accepted in list(self._tally.by_tag.items()):
            seen = self._tally.statuses.get(tag, Counter())
            if accepted == sum(seen[status] for status in FINAL):
                continue
            self._tally.statuses[tag] = Counter({status: await self._total(tag, status) for status in STATUSES})

    async def _total(self, tag: str, status: str) -> int:
        answer = await self._client.get("/jobs", params={"tag": tag, "status": status, "limit": 1})
        if answer.status_code in (429, 502, 503, 504):
            raise httpx.ReadError(f"answer {answer.status_code}")  # as good as none
        if answer.status_code != 200:
            raise RunError(refusal(answer))
        try:
            return int(answer.json()["total"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"What answers at {answer.url} is not Jobflow: there is no total in its list.") from error


class Screen:
    """Bars on a terminal, a line now and then elsewhere."""

    def __init__(self, tally: Tally, clock: Clock, *, poll: bool) -> None:
        self._tally = tally
        self._clock = clock
        self._poll = poll
        self._next = 0.0
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._live = self._progress.console.is_terminal

    def __enter__(self) -> Screen:
        if self._live:
            self._progress.start()
            for name in ("enqueued", "final") if self._poll else ("enqueued",):
                self._bars[name] = self._progress.add_task(name, total=self._tally.count, note="")
        self._next = self._clock.now() + LINE_EVERY
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self.update()
            self._progress.stop()

    def say(self, line: str) -> None:
        if self._live:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def update(self) -> None:
        tally = self._tally
        if self._live:
            self._progress.update(self._bars["enqueued"], completed=tally.accepted)
            if self._poll:
                self._progress.update(self._bars["final"], completed=tally.finished, note=statuses(tally.seen))
        elif self._clock.now() >= self._next:
            self._next = self._clock.now() + LINE_EVERY
            watched = f" · final {tally.finished:,} ({statuses(tally.seen)})" if self._poll else ""
            print(f"enqueued {tally.accepted:,} of {tally.count:,}{watched}", flush=True)


def statuses(seen: Counter[str]) -> str:
    return ", ".join(f"{status} {seen[status]:,}" for status in STATUSES if seen[status])


def backoff(missed: int) -> float:
    return min(0.1 * 2.0 ** (missed - 1), 5.0)


def retry_after(answer: httpx.Response, default: float) -> float:
    """Seconds to wait: the header is a number or a date (RFC 9110)."""
    text = answer.headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError):
            return default
    return min(max(seconds, 0.05), 3600.0) if math.isfinite(seconds) else default


def name_of(error: Exception) -> str:
    return str(error) or type(error).__name__


def refusal(answer: httpx.Response) -> str:
    """Why the server refuses, in one sentence."""
    if answer.status_code == 401:
        return "The server wants a token: pass --token, or set JOBFLOW_ADMIN_TOKEN to what the server has."
    try:
        problem = answer.json()
        faults = "; ".join(" ".join(fault.values()) for fault in problem.get("errors", [])[:3])
        detail = faults or problem.get("detail") or problem["title"]
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"no problem+json, so {answer.url.copy_with(query=None)} is perhaps not Jobflow"
    return f"The server answered {answer.status_code}: {detail}"


async def probe(client: httpx.AsyncClient, url: str) -> None:
    """Find out before the first job whether anything answers there."""
    try:
        answer = await client.get("/readyz")
    except httpx.TransportError as error:
        raise RunError(
            f"No server answers at {url} ({name_of(error)}): start one with ./dev run (or make run), "
            "or name another with --url."
        ) from error
    if answer.status_code not in (200, 503):
        raise RunError(f"What answers at {url} is not Jobflow: GET /readyz gives {answer.status_code}.")


async def stop(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def client_factory(args: argparse.Namespace) -> Callable[[], httpx.AsyncClient]:
    headers = {"Accept": "application/json", "User-Agent": "jobflow-load-test"}
    if args.token:
        headers["Authorization"] = f"Bearer {args.token}"
    # A proxy of the environment is for other machines.
    trust_env = urlsplit(args.url).hostname not in ("localhost", "127.0.0.1", "::1")
    return functools.partial(
        httpx.AsyncClient,
        base_url=args.url,
        headers=headers,
        timeout=httpx.Timeout(30.0, connect=5.0),
        # Shorter than a server's keep-alive, so that we never write into a connection that is being closed.
        limits=httpx.Limits(max_connections=1, keepalive_expiry=2.0),
        trust_env=trust_env,
        verify=httpx.create_ssl_context(),  # made once: it reads all certificates
    )


async def run(args: argparse.Namespace, tally: Tally, clock: Clock) -> None:
    """Send, and with --poll watch. Fills the tally; raises RunError, or CancelledError after Ctrl-C."""
    async with contextlib.AsyncExitStack() as opened:
        # One client for each connection: a shared one takes twice the time for a request, and its queue would be measured.
        new_client = client_factory(args)
        client, *senders = [await opened.enter_async_context(new_client()) for _ in range(args.concurrency + 1)]
        await probe(client, args.url)
        how = f"up to {BULK:,} jobs a POST, " if args.bulk else ""
        with Screen(tally, clock, poll=args.poll) as screen:
            screen.say(f"{args.count:,} jobs to {args.url}, {how}{args.concurrency} connections, tags {tally.tag}:<n>")
            tally.began = clock.now()
            parts = [Sender(senders, tally, clock, screen).send_all(posts(args, tally.tag))]
            if args.poll:
                parts.append(Watcher(client, tally, clock, screen, args.timeout).watch())
            tasks = [asyncio.ensure_future(part) for part in parts]
            try:
                await asyncio.gather(*tasks)
            finally:
                await stop(tasks)


async def run_until_interrupted(args: argparse.Namespace, tally: Tally, clock: Clock) -> bool:
    """True when Ctrl-C ended it."""
    task = asyncio.ensure_future(run(args, tally, clock))
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not this system, or not the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def rate(jobs: int, seconds: float) -> str:
    return f"{jobs / seconds:,.{0 if jobs >= 10 * seconds else 1}f} jobs/s"


def summary(tally: Tally, *, poll: bool) -> Iterator[str]:
    seconds = max(tally.sent - tally.began, 1e-9)
    yield (f"enqueued  {tally.accepted:,} of {tally.count:,} jobs in {seconds:.1f} s, {rate(tally.accepted, seconds)}")
    if tally.latencies:
        ordered = sorted(tally.latencies)
        p50, p95, p99 = (ordered[math.ceil(len(ordered) * p / 100) - 1] * 1e3 for p in (50, 95, 99))
        yield f"POST      p50 {p50:.1f} ms · p95 {p95:.1f} ms · p99 {p99:.1f} ms · max {ordered[-1] * 1e3:.1f} ms"
    yield (
        f"trouble   {tally.limited:,} × 429 · {tally.unavailable:,} × 503 · {tally.broken:,} without an answer · "
        f"{tally.retries:,} retries, {tally.replayed:,} of them already accepted"
    )
    if not poll:
        return
    if tally.ended:
        seconds = max(tally.ended - tally.began, 1e-9)
        yield f"finished  {tally.finished:,} jobs in {seconds:.1f} s, {rate(tally.finished, seconds)} end to end"
    yield f"status    {statuses(tally.seen) or 'none seen'}"
    if left := tally.accepted - tally.finished:
        missing = tally.accepted - sum(tally.seen.values())
        unseen = f" ({missing:,} not found)" if missing > 0 else ""
        yield f"left      {left:,} jobs are not final{unseen}: GET /jobs?tag={tally.tag}:0&status=processing shows some"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Enqueue many jobs and, with --poll, watch them until each is final.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=whole(1, 10_000_000), default=100, help="jobs to enqueue (default 100)")
    parser.add_argument("--poll", action="store_true", help="watch until every job is final; exit 1 if one is not")
    parser.add_argument("--url", default="http://localhost:8000", help="the server (default http://localhost:8000)")
    parser.add_argument("--concurrency", type=whole(1, 1000), default=16, help="connections (default 16)")
    parser.add_argument("--bulk", action="store_true", help=f"up to {BULK:,} jobs in each POST")
    parser.add_argument("--type", help="only this job type (default: a third each of the demo types)")
    parser.add_argument(
        "--payload", type=payload, help="JSON object that every job gets (default: one that suits the type)"
    )
    parser.add_argument(
        "--timeout",
        type=whole(1, 86_400),
        default=600,
        help="seconds --poll waits after the last job was accepted (default 600)",
    )
    parser.add_argument(
        "--token", default=os.environ.get("JOBFLOW_ADMIN_TOKEN", ""), help="bearer token (default: JOBFLOW_ADMIN_TOKEN)"
    )
    args = parser.parse_args(argv)
    args.url = args.url.rstrip("/")
    parts = urlsplit(args.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        parser.error(f"--url: {args.url!r} is not a URL like http://localhost:8000")
    return args


def whole(least: int, most: int) -> Any:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is not between {least:,} and {most:,}")
        return number

    return convert


def payload(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value


def restart() -> None:
    """Become the checkout's own Python, which has what we need; return only if that is not possible."""
    checkout = Path(__file__).resolve().parent.parent
    python = checkout / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != (checkout / ".venv").resolve():
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    where = f"in {checkout / '.venv'}" if python.exists() else "here, and this checkout has no environment yet"
    print(f"{MISSING} is missing {where}: run ./dev run (or make run) once, then this again.", file=sys.stderr)


def main(argv: list[str] | None = None, clock: Clock | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    if MISSING:
        restart()
        return 2
    tally = Tally(args.count, f"load:{secrets.token_hex(4)}")
    interrupted, trouble = False, ""
    try:
        interrupted = asyncio.run(run_until_interrupted(args, tally, clock or Clock()))
    except KeyboardInterrupt:
        interrupted = True
    except RunError as error:
        trouble = str(error)
    if tally.began:
        print(*summary(tally, poll=args.poll), sep="\n", flush=True)
    if trouble:
        print(trouble, file=sys.stderr)
        return 2
    unfinished = args.poll and tally.finished < tally.accepted
    return 1 if interrupted or unfinished or tally.accepted < tally.count else 0


if __name__ == "__main__":
    sys.exit(main())
