"""Writes one line per event: JSON, or readable text on a terminal. Payloads are never logged."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

import msgspec

from jobflow import events as e
from jobflow.lifecycle import Run, Status
from jobflow.settings import Settings

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
URGENT = ("warning", "error")  # levels whose lines do not wait for others
BUFFER = 64 * 1024  # bytes that are written at once at the latest
DELAY = 0.1  # seconds a line waits at most for others
TEXT_LIMIT = 500  # characters of an error's text
TRACEBACK_LIMIT = 8 * 1024  # characters
LIBRARIES = ("uvicorn", "litestar", "asyncio", "sqlalchemy")

_SECRET = re.compile(r"password|secret|token|authorization|cookie|api[-_]?key", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_RESET = "\x1b[0m"

Fields = dict[str, Any]


class Writer:
    """Collects lines and writes them together. Any thread may write; nothing it does raises.

    stream: a binary file; None looks up ``sys.stdout`` at each write. A closed one swallows what it is given.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        # No lock: a deque loses nothing whoever appends while somebody else empties it, and the size is only a hint.
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._limit = BUFFER
        self._promised: asyncio.AbstractEventLoop | None = None  # the loop whose timer will flush

    def write(self, lines: bytes, *, urgent: bool) -> None:
        self._lines.append(lines)
        self._size += len(lines)
        if urgent or self._size >= self._limit or not self._may_wait():
            self.flush()

    def close(self) -> None:
        """Write what is left; from now on every line is written at once, because no timer may come any more."""
        self._limit = 0
        self.flush()

    def flush(self) -> None:
        self._size = 0
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        if lines:
            with suppress(Exception):  # a closed or broken output is not our end
                stream = self._stream or sys.stdout.buffer
                stream.write(b"".join(lines))
                stream.flush()

    def _may_wait(self) -> bool:
        """Whether a timer will flush what was appended before this question."""
        if self._promised is not None and not self._promised.is_closed():
            return True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # this thread has no loop
            return False
        self._promised = loop
        loop.call_later(DELAY, self._late)
        return True

    def _late(self) -> None:
        self._promised = None  # first: whoever still saw the promise has appended by now
        self.flush()


class Logs:
    """The listener. ``close()`` writes what is left and lets the standard library's logging go."""

    def __init__(self, writer: Writer, render: Callable[[Fields], bytes], level: str) -> None:
        self._writer = writer
        self._render = render
        self._least = LEVELS[level]
        # What is never written is not even looked at.
        self._lines = {k: v for k, v in _LINES.items() if not isinstance(v[0], str) or LEVELS[v[0]] >= self._least}
        self._bridge = _Bridge(self)

    def __call__(self, events: Sequence[e.Event]) -> None:
        """Write the lines of events of one kind. Never raises."""
        kind = type(events[0])
        if kind not in self._lines:
            return
        (level, describe), name, now, lines, urgent = self._lines[kind], _NAMES[kind], datetime.now(UTC), [], False
        for event in events:
            try:
                own = level if isinstance(level, str) else level(event)
                if LEVELS[own] >= self._least:
                    lines.append(self._render({"ts": now, "level": own, "event": name, **describe(event)}))
                    urgent = urgent or own in URGENT
            except Exception as error:
                self.write("error", "log_failed", {"event_type": kind.__name__, "error": type(error).__name__})
        if lines:
            self._writer.write(b"".join(lines), urgent=urgent)

    def write(self, level: str, name: str, fields: Fields) -> None:
        line = self._render({"ts": datetime.now(UTC), "level": level, "event": name, **fields})
        self._writer.write(line, urgent=level in URGENT)

    def open(self) -> None:
        """Take over warnings and errors of the standard library's logging, whoever logs them."""
        atexit.register(self.close)
        logging.getLogger().addHandler(self._bridge)
        for name in LIBRARIES:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(logging.WARNING)

    def close(self) -> None:
        logging.getLogger().removeHandler(self._bridge)
        self._writer.close()
        atexit.unregister(self.close)


def setup(settings: Settings, events: e.Events, stream: BinaryIO | None = None) -> Logs:
    """Log all events, and the libraries' warnings, to ``stream`` (standard output by default)."""
    terminal = stream is None and _is_terminal()
    render = _json
    if settings.log_format == "text" or (settings.log_format == "auto" and terminal):
        render = partial(_text, colour=terminal and "NO_COLOR" not in os.environ)
    logs = Logs(Writer(stream), render, settings.log_level)
    logs.open()
    events.subscribe(logs)
    return logs


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


class _Bridge(logging.Handler):
    """From the standard library's logging into our lines."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields: Fields = {"logger": record.name}
        try:
            fields["message"] = one_line(record.getMessage())
            if record.exc_info and record.exc_info[1] is not None:
                fields |= _error(record.exc_info[1])
        except Exception as error:  # the arguments do not fit the message
            fields |= {"message": one_line(str(record.msg)), "error": type(error).__name__}
        self._logs.write(level, "library", fields)


def one_line(text: str, limit: int = TEXT_LIMIT) -> str:
    """Cut to ``limit`` characters, without line breaks or other control characters."""
    text = " ".join(text[: 4 * limit].split())
    return _CONTROL.sub("�", text if len(text) <= limit else text[: limit - 1] + "…")


def masked(value: Any, depth: int = 4) -> Any:
    """A copy in which the values of keys that look like secrets are ``***``; what lies deeper is ``…``."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if not depth:
        return "…"
    if isinstance(value, dict):
        return {k: "***" if _SECRET.search(str(k)) else masked(v, depth - 1) for k, v in value.items()}
    return [masked(item, depth - 1) for item in value]


# --- how each event reads -----------------------------------------------------------------------------------------


def _run(run: Run) -> Fields:
    return {"job_id": run.id, "type": run.type, "queue": run.queue, "attempt": run.attempt, "worker": run.worker}


def _error(error: BaseException) -> Fields:
    trace = "".join(traceback.format_exception(error))
    return {"error": one_line(f"{type(error).__name__}: {error}"), "traceback": trace[-TRACEBACK_LIMIT:]}


def _run_ended(event: e.RunEnded) -> Fields:
    change = event.change
    run = change.run
    fields: Fields = {
        "job_id": run.id,
        "type": run.type,
        "queue": run.queue,
        "attempt": run.attempt,
        "status": event.status,
        "cause": change.cause,
        "seconds": round(event.seconds, 6),
        "worker": run.worker,
    }
    if change.failure is not None:
        fields["error"] = one_line(f"{change.failure.type}: {change.failure.message}")
    if change.reason is not None:
        fields["reason"] = one_line(change.reason)
    return fields


def _jobs_enqueued(event: e.JobsEnqueued) -> Fields:
    if len(event.ids) == 1:
        return {"queue": event.queues[0], "job_id": event.ids[0], "type": event.types[0]}
    kinds = Counter(event.types).most_common(10)
    return {"queue": ",".join(sorted(set(event.queues))[:10]), "count": len(event.ids), "types": dict(kinds)}


def _handler_log(event: e.HandlerLog) -> Fields:
    fields: Fields = {**_run(event.run), "message": one_line(event.message, 4 * TEXT_LIMIT)}
    if event.fields:
        fields["fields"] = masked(event.fields)
    return fields


_RUN_LEVELS = {Status.FAILED.value: "warning", Status.DEAD_LETTER.value: "error"}

# event → (level, or how to tell it; what the line says)
_LINES: dict[type[e.Event], tuple[str | Callable[[Any], str], Callable[[Any], Fields]]] = {
    e.JobsEnqueued: ("info", _jobs_enqueued),
    e.JobMoved: ("info", lambda x: {"job_id": x.id, "action": x.action, "before": x.before, "status": x.after}),
    e.RunStarted: ("debug", lambda x: _run(x.run)),
    e.RunEnded: (lambda x: _RUN_LEVELS.get(x.status, "info"), _run_ended),
    e.RunRefused: ("warning", lambda x: {**_run(x.change.run), "cause": x.change.cause}),
    e.RunStuck: ("error", lambda x: _run(x.run)),
    e.RunsRescued: ("warning", lambda x: {"worker": x.worker, "count": x.count}),
    e.WorkerMarkedLost: ("warning", lambda x: {"worker": x.worker}),
    e.LeaseLost: ("error", lambda x: {"worker": x.worker, "successor": x.successor}),
    e.ClaimsAdopted: ("warning", lambda x: {"count": x.count}),
    e.ClaimsForgotten: ("warning", lambda x: {"count": x.count}),
    e.ServerAway: ("error", lambda x: {"server": x.server, "error": one_line(x.error)}),
    e.ServerBack: ("warning", lambda x: {"server": x.server, "seconds": round(x.seconds, 3)}),
    e.LoopFailed: ("error", lambda x: {"loop": x.loop, **_error(x.error)}),
    e.LoopBlocked: (
        "warning",
        lambda x: {
            **(_run(x.run) if x.run else {}),
            "seconds": round(x.seconds, 3),
            "traceback": x.stack[-TRACEBACK_LIMIT:],
        },
    ),
    e.ProcessStarted: ("info", lambda x: {"worker": x.worker, "concurrency": x.concurrency, "types": list(x.types)}),
    e.ProcessDraining: ("info", lambda x: {"running": x.running}),
    e.ProcessStopped: ("info", lambda x: {"released": x.released, "seconds": round(x.seconds, 3)}),
    e.PartitionDropped: ("info", lambda x: {"table": x.table}),
    e.TransactionHeld: ("warning", lambda x: {"pid": x.pid, "name": one_line(x.name), "seconds": round(x.seconds)}),
    e.Warned: ("warning", lambda x: {"message": one_line(x.message)}),
    e.RequestFailed: (
        "error",
        lambda x: {"method": x.method, "path": one_line(x.path), "request_id": x.request_id, **_error(x.error)},
    ),
    e.HandlerLog: (lambda x: x.level, _handler_log),
}
_NAMES = {event: re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower() for event in _LINES}


# --- how a line looks ---------------------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder(enc_hook=lambda value: one_line(str(value)))


def _json(line: Fields) -> bytes:
    try:
        return _encoder.encode(line) + b"\n"
    except Exception:  # what a handler logged: a lone surrogate, an endless structure, an object without a text …
        plain = {key: value if key == "ts" else _plain(value) for key, value in line.items()}
        return _encoder.encode(plain) + b"\n"


def _text(line: Fields, *, colour: bool) -> bytes:
    fields = line.copy()
    stamp = fields.pop("ts").astimezone().strftime("%H:%M:%S.%f")[:-3]
    level = fields.pop("level")
    name = fields.pop("event").replace("_", " ")
    message = fields.pop("message", "")
    trace = fields.pop("traceback", "")
    painted = f"{_COLOURS[level]}{level:<7}{_RESET}" if colour else f"{level:<7}"
    words = [stamp, painted, f"{name:<13}", *([message] if message else [])]
    words += [f"{key}={_plain(value)}" for key, value in fields.items()]
    rows = [" ".join(words), *(_CONTROL.sub("�", row) for row in trace.splitlines())]
    return ("\n".join(rows) + "\n").encode(errors="replace")


def _plain(value: Any) -> str:
    try:
        return one_line(str(value), 4 * TEXT_LIMIT)
    except Exception:
        return f"<{type(value).__name__}>"
