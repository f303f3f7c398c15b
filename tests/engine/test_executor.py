"""How a handler ends, and what becomes of the job: one test for each row of that table."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import pytest

from jobflow import Cancel, Context, Discard, Snooze
from jobflow.engine.executor import CANCELLED, MESSAGE_LIMIT, TRACEBACK_LIMIT, Executor, Supervision
from jobflow.errors import StoreUnavailable
from jobflow.events import Events
from jobflow.lifecycle import Cause, Change, Failure, Status
from jobflow.registry import Registry
from tests.support.runs import JOB, make_run

Handler = Callable[..., Any]
FAILED = (Cause.ERRORED, Status.FAILED)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Bench:
    """An executor with one job type, ``t``."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.registry = Registry()
        self.elsewhere: Callable[[str], Awaitable[bool]] = self._nowhere
        self.enqueued: list[tuple[str, Any, dict[str, Any]]] = []
        self.completed: list[Change] = []
        self.executor = Executor(
            registry=self.registry,
            state={"http": "client"},
            events=Events(),
            threads=threads,
            enqueue=self._enqueue,
            complete_in=self._complete_in,
            has_elsewhere=lambda name: self.elsewhere(name),
        )

    async def _complete_in(self, session: Any, change: Change) -> bool:
        self.completed.append(change)
        return bool(session)

    async def _nowhere(self, name: str) -> bool:
        return False

    async def _enqueue(self, type: str, payload: Any, **options: Any) -> UUID:
        self.enqueued.append((type, payload, options))
        return JOB

    def start(self, handler: Handler | None, /, **run: Any) -> tuple[asyncio.Task[Change], Supervision]:
        if handler is not None:
            self.registry.job("t", backoff=lambda attempt: 10.0 * attempt)(handler)
        supervision = Supervision(make_run(type="t", **run))
        supervision.task = asyncio.ensure_future(self.executor.execute(supervision.run, supervision))
        return supervision.task, supervision

    async def run(self, handler: Handler | None, /, **run: Any) -> Change:
        return await self.start(handler, **run)[0]


@pytest.fixture
def bench(threads: ThreadPoolExecutor) -> Bench:
    return Bench(threads)


def failure_of(change: Change) -> Failure:
    assert (change.cause, change.after) == FAILED, change
    assert change.failure is not None
    return change.failure


class Stopper:
    """Waits for the handler to be in its middle, stops it, gives the Change."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.inside = asyncio.Event()

    async def __call__(self, handler: Handler, cause: Any, **run: Any) -> Change:
        task, supervision = self.bench.start(handler, **run)
        await self.inside.wait()
        supervision.stop(cause)
        assert supervision.cause == cause
        return await task

    async def endless(self, payload: dict[str, Any]) -> None:
        self.inside.set()
        await asyncio.Event().wait()


@pytest.fixture
def stopper(bench: Bench) -> Stopper:
    return Stopper(bench)


class Plain(msgspec.Struct):
    n: int = 0


# --- it returns ---


@pytest.mark.parametrize(
    ("value", "result"),
    [(None, None), ({"a": 1}, b'{"a":1}'), (5, b"5"), (False, b"false"), ("", b'""'), (Plain(2), b'{"n":2}')],
)
async def test_a_value_is_the_result(bench: Bench, value: Any, result: bytes | None) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        return value

    change = await bench.run(handler)
    assert (change.cause, change.after, change.result) == (Cause.COMPLETED, Status.COMPLETED, result)


async def test_a_thread_handler_returns_too(bench: Bench) -> None:
    def handler(payload: dict[str, Any], ctx: Context) -> Any:
        return [payload, ctx.attempt, threading.current_thread() is threading.main_thread()]

    change = await bench.run(handler, payload='{"a":1}', attempt=2)
    assert change.result == b'[{"a":1},2,false]'


async def test_a_result_that_is_no_json_is_a_failed_attempt_that_says_so(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        return object()

    failure = failure_of(await bench.run(handler))
    assert failure.type == "ResultMismatch"
    assert "cannot be stored as JSON" in failure.message
    assert "object" in failure.message


async def test_snooze(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        return Snooze(90)

    change = await bench.run(handler, attempt=3)
    assert (change.cause, change.delay, change.attempt) == (Cause.SNOOZED, 90, 2)


async def test_cancel(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        return Cancel("not wanted \x00 any more")

    change = await bench.run(handler)
    assert (change.cause, change.reason) == (Cause.CANCELLED, "not wanted � any more")


# --- it raises ---


async def test_an_exception_is_a_failed_attempt_with_the_types_backoff(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        raise ValueError("wrong \x00 \ud800")

    change = await bench.run(handler, attempt=2)
    failure = failure_of(change)
    assert (failure.type, failure.message) == ("ValueError", "wrong � �")
    assert (change.delay, change.attempt) == (20.0, 2)


async def test_the_last_attempt_goes_to_the_dead_letter_queue(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        raise ValueError

    change = await bench.run(handler, attempt=5, max_attempts=5)
    assert (change.cause, change.after) == (Cause.EXHAUSTED, Status.DEAD_LETTER)


async def test_discard_is_final_with_attempts_left(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        raise Discard("no such user")

    change = await bench.run(handler)
    assert (change.cause, change.after) == (Cause.DISCARDED, Status.DEAD_LETTER)
    assert change.failure is not None
    assert (change.failure.type, change.failure.message) == ("Discard", "no such user")


async def failing(payload: dict[str, Any]) -> None:
    deeper()


def failing_in_a_thread(payload: dict[str, Any]) -> None:
    deeper()


def deeper() -> None:
    raise KeyError("gone")


@pytest.mark.parametrize("handler", [failing, failing_in_a_thread])
async def test_the_traceback_begins_in_the_handler(bench: Bench, handler: Handler) -> None:
    trace = failure_of(await bench.run(handler)).traceback
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File")]
    assert [line.rpartition(" ")[2] for line in lines] == [handler.__name__, "deeper"]
    assert all(__file__ in line for line in lines)
    assert trace.endswith("KeyError: 'gone'\n")


async def test_huge_errors_are_cut(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        raise ValueError("é" * 200_000)

    failure = failure_of(await bench.run(handler))
    assert 0 < len(failure.message.encode()) <= MESSAGE_LIMIT
    assert 0 < len(failure.traceback.encode()) <= TRACEBACK_LIMIT


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (TimeoutError("the handler's own"), "TimeoutError"),
        (asyncio.CancelledError("not asked for"), "CancelledError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (StopIteration(3), "RuntimeError"),
        (BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]), "BaseExceptionGroup"),
        (ExceptionGroup("several", [ValueError()]), "ExceptionGroup"),
        (UnreadableError(), "UnreadableError"),
    ],
)
@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_whatever_a_handler_raises_is_an_ordinary_failure(
    bench: Bench, where: str, error: BaseException, name: str
) -> None:
    async def on_the_loop(payload: dict[str, Any]) -> Any:
        raise error

    def in_a_thread(payload: dict[str, Any]) -> Any:
        raise error

    assert failure_of(await bench.run(on_the_loop if where == "loop" else in_a_thread)).type == name


async def test_a_cancelled_task_of_the_handlers_own_is_a_failure(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    assert failure_of(await bench.run(handler)).type == "CancelledError"


async def test_endless_recursion_is_a_failure(bench: Bench) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        def again() -> None:
            again()

        again()

    failure = failure_of(await bench.run(handler))
    assert failure.type == "RecursionError"
    assert "test_executor" in failure.traceback


@pytest.mark.parametrize("wrong", [lambda a: 1 / 0, lambda a: -1.0, lambda a: float("nan"), lambda a: "soon"])
async def test_a_backoff_that_does_not_work_falls_back_to_the_default(bench: Bench, wrong: Any) -> None:
    @bench.registry.job("wrong", backoff=wrong)
    async def handler(payload: dict[str, Any]) -> Any:
        raise ValueError

    run = make_run(type="wrong", attempt=3)
    change = await bench.executor.execute(run, Supervision(run))
    assert failure_of(change).type == "ValueError"
    assert change.delay is not None
    assert 8.0 <= change.delay <= 8.8


# --- we stop it ---


async def test_out_of_time(stopper: Stopper) -> None:
    change = await stopper(stopper.endless, "timeout", timeout=2.5)
    failure = failure_of(change)
    assert (failure.type, failure.message) == ("Timeout", "ran longer than 2.5 s")
    assert "in endless" in failure.traceback
    assert change.delay == 10.0


async def test_cancelled_while_it_ran(stopper: Stopper) -> None:
    change = await stopper(stopper.endless, "cancel")
    assert (change.cause, change.after, change.reason) == (Cause.CANCELLED, Status.CANCELLED, CANCELLED)


@pytest.mark.parametrize("cause", ["drain", "lost"])
async def test_draining_gives_the_attempt_back(stopper: Stopper, cause: str) -> None:
    change = await stopper(stopper.endless, cause, attempt=3)
    assert (change.cause, change.after, change.attempt, change.recorded) == (
        Cause.RELEASED,
        Status.PENDING,
        2,
        True,
    )


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("timeout", Cause.COMPLETED),
        ("drain", Cause.COMPLETED),
        ("lost", Cause.COMPLETED),
        ("cancel", Cause.CANCELLED),
    ],
)
async def test_a_handler_that_finishes_all_the_same(stopper: Stopper, cause: str, expected: Cause) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        try:
            await stopper.endless(payload)
        except asyncio.CancelledError:
            return "done"

    change = await stopper(handler, cause)
    assert (change.cause, change.result) == (expected, b'"done"' if expected is Cause.COMPLETED else None)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("timeout", Cause.ERRORED),
        ("drain", Cause.RELEASED),
        ("lost", Cause.RELEASED),
        ("cancel", Cause.CANCELLED),
    ],
)
async def test_what_it_raises_while_it_is_stopped_does_not_count(stopper: Stopper, cause: str, expected: Cause) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        try:
            await stopper.endless(payload)
        finally:
            raise RuntimeError("while tidying up")

    change = await stopper(handler, cause)
    assert change.cause is expected
    if cause == "timeout":
        assert change.failure is not None
        assert change.failure.type == "Timeout"
        assert "while tidying up" in change.failure.traceback


@pytest.mark.parametrize(("cause", "expected"), [("timeout", Cause.DISCARDED), ("cancel", Cause.CANCELLED)])
async def test_a_discard_while_it_is_stopped_is_heard(stopper: Stopper, cause: str, expected: Cause) -> None:
    async def handler(payload: dict[str, Any]) -> Any:
        try:
            await stopper.endless(payload)
        except asyncio.CancelledError:
            raise Discard("too slow to be of use") from None

    assert (await stopper(handler, cause)).cause is expected


async def test_only_the_first_stop_counts_so_that_it_can_tidy_up(bench: Bench, stopper: Stopper) -> None:
    tidying, tidied = asyncio.Event(), asyncio.Event()

    async def handler(payload: dict[str, Any]) -> Any:
        try:
            await stopper.endless(payload)
        finally:
            tidying.set()
            await tidied.wait()

    task, supervision = bench.start(handler)
    await stopper.inside.wait()
    supervision.stop("timeout")
    await tidying.wait()
    supervision.stop("drain")
    tidied.set()
    assert failure_of(await task).type == "Timeout"
    assert supervision.cause == "timeout"


async def test_a_stop_before_the_start_hands_the_claim_back_unspent(bench: Bench) -> None:
    ran = []

    async def handler(payload: dict[str, Any]) -> Any:
        ran.append(payload)

    bench.registry.job("t")(handler)
    supervision = Supervision(make_run(type="t", attempt=2))
    supervision.stop("drain")
    change = await bench.executor.execute(supervision.run, supervision)
    assert (change.cause, change.attempt, change.recorded) == (Cause.RELEASED, 1, False)

    assert ran == []


async def test_the_deadline_is_set_when_the_handler_starts(bench: Bench) -> None:
    seen = []

    async def handler(payload: dict[str, Any]) -> Any:
        seen.append((supervision.deadline, time.monotonic(), supervision.task))

    task, supervision = bench.start(handler, timeout=40.0)
    assert supervision.deadline == float("inf")
    await task
    ((deadline, now, inner),) = seen
    assert now + 30.0 < deadline <= now + 40.0
    assert inner is task


# --- threads ---


async def test_a_thread_that_is_stopped_keeps_its_thread_but_not_its_run(bench: Bench) -> None:
    inside, go_on, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    told = []

    def handler(payload: dict[str, Any], ctx: Context) -> Any:
        loop.call_soon_threadsafe(inside.set)
        go_on.wait(10)
        told.append(ctx.cancelled)
        ended.set()
        return "too late"

    task, supervision = bench.start(handler)
    await inside.wait()
    supervision.stop("timeout")
    assert failure_of(await task).type == "Timeout"
    assert not ended.is_set()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert told == [True]


@pytest.mark.parametrize(
    ("cause", "looks", "raises", "expected"),
    [
        ("cancel", True, False, Cause.CANCELLED), ("cancel", False, False, Cause.COMPLETED),
        ("cancel", True, True, Cause.CANCELLED), ("cancel", False, True, Cause.ERRORED),
        ("drain", True, False, Cause.COMPLETED), ("drain", True, True, Cause.RELEASED),
        ("drain", False, True, Cause.ERRORED),
    ],
)  # fmt: skip
async def test_a_thread_gets_the_time_to_notice_that_it_is_cancelled(
    bench: Bench, cause: Any, looks: bool, raises: bool, expected: Cause
) -> None:
    """An error that it raised without having looked is its own. (With a cancel request on the row it ends cancelled.)"""
    inside, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def handler(payload: dict[str, Any], ctx: Context) -> Any:
        loop.call_soon_threadsafe(inside.set)
        go_on.wait(10)
        if looks:
            assert ctx.cancelled
        if raises:
            raise ValueError
        return 1

    task, supervision = bench.start(handler)
    await inside.wait()
    supervision.stop(cause)
    await asyncio.sleep(0.05)
    assert not task.done()
    go_on.set()
    assert (await task).cause is expected


@pytest.mark.parametrize("cause", ["timeout", "drain", "cancel"])
async def test_a_run_that_never_got_a_thread_costs_no_attempt(
    bench: Bench, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, cause: Any
) -> None:
    go_on = threading.Event()
    busy = [threads.submit(go_on.wait, 10) for _ in range(2)]
    handed_over = asyncio.Event()
    submit = threads.submit

    def announced(*call: Any) -> Any:
        handed_over.set()
        return submit(*call)

    monkeypatch.setattr(threads, "submit", announced)
    ran: list[Any] = []

    def handler(payload: dict[str, Any]) -> None:
        ran.append(payload)

    task, supervision = bench.start(handler, attempt=2)
    await asyncio.wait_for(handed_over.wait(), 10)
    supervision.stop(cause)
    change = await task
    if cause == "cancel":
        assert change.cause is Cause.CANCELLED
    else:
        assert (change.cause, change.attempt, change.recorded) == (Cause.RELEASED, 1, False)
    go_on.set()
    assert all(future.result(10) for future in busy)
    assert ran == []


async def test_the_wait_for_a_thread_does_not_count(
    bench: Bench, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    busy = [threads.submit(go_on.wait, 10) for _ in range(2)]
    deadlines: list[float] = []

    def handler(payload: dict[str, Any]) -> None:
        deadlines.append(supervision.deadline)

    task, supervision = bench.start(handler)
    submit = threads.submit

    def handed_over(*call: Any) -> Any:
        deadlines.append(supervision.deadline)
        future = submit(*call)
        go_on.set()
        return future

    monkeypatch.setattr(threads, "submit", handed_over)
    await task
    assert all(future.result(10) for future in busy)
    waiting, running = deadlines
    assert waiting < running < time.monotonic() + 300.0


# --- before it runs ---


async def test_a_stored_payload_that_no_longer_fits_fails_with_the_pointer(bench: Bench) -> None:
    async def handler(payload: Plain) -> Any:
        raise AssertionError

    change = await bench.run(handler, payload='{"n":"x"}')
    failure = failure_of(change)
    assert failure.type == "PayloadMismatch"
    assert "/payload/n" in failure.message
    assert (change.delay, change.attempt) == (10.0, 1)


async def test_a_payload_arrives_as_its_type(bench: Bench) -> None:
    async def handler(payload: Plain) -> Any:
        return payload.n + 1

    assert (await bench.run(handler, payload='{"n":41}')).result == b"42"


async def test_without_a_handler_another_process_gets_the_job_unspent(bench: Bench) -> None:
    asked = []

    async def elsewhere(name: str) -> bool:
        asked.append(name)
        return True

    bench.elsewhere = elsewhere
    change = await bench.run(None, attempt=2)
    assert (change.cause, change.attempt, change.recorded) == (Cause.HANDED_BACK, 1, False)
    assert asked == ["t"]


async def test_without_a_handler_anywhere_the_attempt_fails(bench: Bench) -> None:
    change = await bench.run(None, attempt=2)
    failure = failure_of(change)
    assert (failure.type, failure.message) == ("NoHandler", "no live process handles 't'")
    assert change.delay is not None
    assert 4.0 <= change.delay <= 4.4


async def test_when_nobody_can_tell_who_handles_it_no_attempt_is_spent(bench: Bench) -> None:
    async def elsewhere(name: str) -> bool:
        raise StoreUnavailable("Postgres is away")

    bench.elsewhere = elsewhere
    assert (await bench.run(None)).cause is Cause.HANDED_BACK


# --- what it has ---


async def test_the_context_is_the_runs_own(bench: Bench) -> None:
    async def handler(payload: dict[str, Any], ctx: Context) -> Any:
        await ctx.enqueue("next", {"a": 1}, queue="media")
        return [ctx.attempt, ctx.state, ctx.cancelled]

    change = await bench.run(handler, attempt=2)
    assert change.result == b'[2,{"http":"client"},false]'
    assert bench.enqueued == [("next", {"a": 1}, {"queue": "media"})]


@pytest.mark.parametrize(("held", "error"), [(True, "NotCommitted"), (False, "RunLost")])
async def test_a_completion_of_its_own_is_not_repeated(bench: Bench, held: bool, error: str) -> None:
    """Whether it was committed only Postgres knows: the fence refuses this failure if it was."""

    async def handler(payload: dict[str, Any], ctx: Context) -> Any:
        await ctx.complete_in(held, {"a": 1})
        return "not looked at"

    failure = failure_of(await bench.run(handler))
    assert failure.type == error
    (change,) = bench.completed
    assert (change.cause, change.result) == (Cause.COMPLETED, b'{"a":1}')


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def test_context_variables_come_along_into_a_thread_and_stay_there(bench: Bench) -> None:
    def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("handler")
        return seen

    def in_a_thread(payload: dict[str, Any]) -> Any:
        return look()

    bench.registry.job("t")(in_a_thread)
    VARIABLE.set("worker")
    run = make_run(type="t")
    change = await bench.executor.execute(run, Supervision(run))
    assert change.result == b'"worker"'
    assert VARIABLE.get() == "worker"


async def test_nothing_of_a_run_is_kept(bench: Bench) -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    async def handler(payload: dict[str, Any]) -> Any:
        local = Big()
        kept.append(weakref.ref(local))
        raise ValueError(str(local))

    assert failure_of(await bench.run(handler)).type == "ValueError"
    gc.collect()
    assert [ref() for ref in kept] == [None]
