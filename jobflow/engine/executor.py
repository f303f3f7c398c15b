"""Runs one handler and turns whatever comes of it into a Change: a value, which somebody else writes."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec

from jobflow import lifecycle, payloads, retry
from jobflow.context import FOREVER, Cancel, Context, Discard, Enqueue, Snooze
from jobflow.engine.lease import boottime
from jobflow.errors import Invalid, RunLost
from jobflow.events import Events
from jobflow.lifecycle import Change, Failure, Run
from jobflow.registry import JobType, Registry

MESSAGE_LIMIT = 8 * 1024  # bytes, like TRACEBACK_LIMIT
TRACEBACK_LIMIT = 64 * 1024
FRAMES = 100  # the innermost ones that are formatted
CANCELLED = "cancelled by a person"

class_of = type  # quicker than isinstance, which the classes of Structs slow down

StopCause = Literal["timeout", "cancel", "drain", "lost"]
PATIENT = ("cancel", "drain")  # a thread gets the time to look at ctx.cancelled, as a coroutine does to tidy up


class Supervision(msgspec.Struct, eq=False):
    """One run as its watchers see it. The watchdog calls ``stop("timeout")`` once ``deadline`` has passed."""

    run: Run
    began: float = msgspec.field(default_factory=time.monotonic)  # when its claim was answered
    claimed: float = msgspec.field(default_factory=boottime)  # the same, by the clock of the lease
    task: asyncio.Task[Any] | None = None  # in which the handler runs
    deadline: float = math.inf  # seconds of time.monotonic(); set when the handler starts
    started: bool = False  # whether any line of the handler ran
    in_thread: bool = False  # whether it ran in a thread, which cannot be cancelled from outside
    cause: StopCause | None = None
    stopped: float = math.inf  # when stop() was called
    noticed: bool = False  # whether the handler knows of it
    completing: bool = False  # whether its completion stands in a transaction of its own: its commit decides
    ended: bool = False  # its ending waits to be written
    abandoned: bool = False  # the handler ignored that it was stopped: its ending was written without it

    def stop(self, cause: StopCause) -> None:
        """Cancel the handler, once: a second call is ignored, so that a handler can tidy up undisturbed."""
        if self.cause is None:
            self.cause = cause
            self.stopped = time.monotonic()
            if self.task is not None and not (self.in_thread and cause in PATIENT):
                self.noticed = True
                self.task.cancel()


class Executor:
    """Runs handlers. One per process; it keeps nothing between runs.

    state: what the lifespan yielded, for ``ctx.state``.
    threads: where plain ``def`` handlers run.
    enqueue: submits a job, for ``ctx.enqueue``.
    complete_in: writes a completion in a given session's transaction; whether the fence held.
    has_elsewhere: whether another live process handles this type.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        state: Any,
        events: Events,
        threads: ThreadPoolExecutor,
        enqueue: Enqueue,
        complete_in: Callable[[Any, Change], Awaitable[bool]],
        has_elsewhere: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._registry = registry
        self._state = state
        self._events = events
        self._threads = threads
        self._enqueue = enqueue
        self._complete_in = complete_in
        self._has_elsewhere = has_elsewhere

    async def execute(self, run: Run, supervision: Supervision) -> Change:
        """Run the handler of ``run`` to its end, however it ends, in the caller's task, which is ``supervision.task``.

        Raises nothing a handler does. The caller's task may be left cancelled, or with other context variables.
        """
        type = self._registry.get(run.type)
        if type is None:
            return await self._unhandled(run)
        try:
            payload = type.decode(run.payload)
        except Invalid as error:
            return _fail(run, type.backoff, Failure("PayloadMismatch", _clean(str(error))))
        if supervision.cause is not None:  # stopped while it waited for its turn
            return _stopped(run, type, supervision, None)
        return await self._handle(run, type, payload, supervision)

    def explain(self, supervision: Supervision, error: BaseException) -> Change:
        """What becomes of a run whose handler ended with ``error``."""
        return _raised(supervision.run, self._registry.types[supervision.run.type], supervision, error)

    async def _unhandled(self, run: Run) -> Change:
        try:
            elsewhere = await self._has_elsewhere(run.type)
        except Exception:  # nobody can tell now; asking again costs no attempt
            elsewhere = True
        if elsewhere:
            return lifecycle.hand_back(run)
        return _fail(run, retry.default, Failure("NoHandler", f"no live process handles {run.type!r}"))

    async def _handle(self, run: Run, type: JobType, payload: Any, supervision: Supervision) -> Change:
        arguments: tuple[Any, ...] = (payload,)
        if type.takes_context:
            context = Context(
                run, state=self._state, events=self._events, supervision=supervision,
                enqueue=self._enqueue, complete=self._complete,
            )  # fmt: skip
            arguments = (payload, context)
        supervision.deadline = time.monotonic() + run.timeout  # kept by the watchdog: asyncio.timeout would cost more
        try:
            if type.runs_in == "loop":
                supervision.started = True
                value = await type.handler(*arguments)
            else:
                # Cancelling this await does not stop a thread: the run ends now, the thread stays taken until the
                # handler returns, and what it returns then is dropped. See PATIENT.
                value = await asyncio.get_running_loop().run_in_executor(
                    self._threads, contextvars.copy_context().run, _in_thread, type, arguments, supervision
                )
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a handler cannot end the process
            return _raised(run, type, supervision, error)
        return _returned(run, type, supervision, value)

    async def _complete(self, supervision: Supervision, session: Any, result: Any) -> None:
        encoded = None if result is None else payloads.clean_result(result)
        # Before the statement: from then on only Postgres knows whether the job is completed.
        supervision.completing = True
        if not await self._complete_in(session, lifecycle.complete(supervision.run, encoded)):
            raise RunLost("This run was given up: its job may run elsewhere. Roll back what it has written.")


def _in_thread(type: JobType, arguments: tuple[Any, ...], supervision: Supervision) -> Any:
    supervision.deadline = time.monotonic() + supervision.run.timeout  # the wait for a thread does not count
    supervision.started = supervision.in_thread = True
    try:
        return type.handler(*arguments)
    except StopIteration as error:  # a future cannot carry it and would never be done
        raise RuntimeError("the handler raised StopIteration") from error


def _returned(run: Run, type: JobType, supervision: Supervision, value: Any) -> Change:
    kind = class_of(value)
    if kind is Cancel:
        return lifecycle.cancel(run, payloads.clean_text(value.reason, MESSAGE_LIMIT))
    if supervision.cause == "cancel" and supervision.noticed and not supervision.completing:
        # It heard of its cancellation and tidied up: what it returned then is no success that anybody asked for.
        return lifecycle.cancel(run, CANCELLED)
    if kind is Snooze:
        return lifecycle.snooze(run, value.seconds)
    if supervision.completing:
        # If it was committed, the fence refuses this, and what is found then is the completion.
        return _fail(run, type.backoff, Failure("NotCommitted", "complete_in was called and not committed"))
    # Stopped for another reason and finished all the same: the work is done, running it again would only repeat it.
    # (If the run is lost, the fence refuses the result.)
    if value is None:
        return lifecycle.complete(run, None)
    try:
        return lifecycle.complete(run, payloads.clean_result(value))
    except Exception as error:
        failure = Failure("ResultMismatch", _clean(f"the result cannot be stored as JSON: {error}"))
        return _fail(run, type.backoff, failure)


def _raised(run: Run, type: JobType, supervision: Supervision, error: BaseException) -> Change:
    if isinstance(error, Discard) and supervision.cause != "cancel":
        return lifecycle.discard(run, _failure(error))
    if supervision.noticed:  # whatever it raised, we stopped it
        return _stopped(run, type, supervision, error)
    # Its own CancelledError or TimeoutError is a failure like any other.
    return _fail(run, type.backoff, _failure(error))


def _stopped(run: Run, type: JobType, supervision: Supervision, error: BaseException | None) -> Change:
    if supervision.cause == "cancel":
        return lifecycle.cancel(run, CANCELLED)
    if not supervision.started:  # also a timeout: every thread was taken for as long as the job may run
        return lifecycle.unstart(run)
    if supervision.cause == "timeout":
        where = _traceback(error) if error is not None else ""
        return _fail(run, type.backoff, Failure("Timeout", f"ran longer than {run.timeout:g} s", where))
    return lifecycle.release(run)


def _fail(run: Run, backoff: retry.Backoff, failure: Failure) -> Change:
    try:
        delay = float(backoff(run.attempt))
        if not 0 <= delay <= FOREVER:
            raise ValueError(delay)
    except Exception:  # a backoff function that does not work must not cost the failure it was asked about
        delay = retry.default(run.attempt)
    return lifecycle.fail(run, failure, delay)


def _failure(error: BaseException) -> Failure:
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    return Failure(type(error).__name__, _clean(message), _traceback(error))


def _traceback(error: BaseException) -> str:
    """The traceback without the frames that are ours: from the handler's first line on."""
    mine = trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == __file__:
            mine = trace.tb_next
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, mine, limit=-FRAMES)
    return payloads.clean_text("".join(lines), TRACEBACK_LIMIT)


def _clean(message: str) -> str:
    return payloads.clean_text(message, MESSAGE_LIMIT)
