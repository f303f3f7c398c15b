from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobflow import events, lifecycle, logs
from jobflow.events import Event, Events, HandlerLog, JobsEnqueued, RunEnded, RunStarted
from jobflow.lifecycle import Change, Failure, Status
from jobflow.settings import Settings
from tests.support.runs import JOB, WORKER, make_run

Run = lifecycle.Run


class Sink(io.BytesIO):
    """An output that tells when it was written to, and can break."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.broken = False
        self.written = threading.Event()

    def write(self, data: Any) -> int:
        if self.broken:
            raise BrokenPipeError
        self.writes += 1
        done = super().write(data)
        self.written.set()
        return done

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.sink = Sink()
        self.events = Events()
        self.logs = logs.setup(Settings(**{"log_format": "json", **settings}), self.events, self.sink)

    def line(self, event: Event) -> dict[str, Any]:
        """The one line that this event makes."""
        before = len(self.sink.lines())
        self.events.emit(event)
        self.logs._writer.flush()
        (line,) = self.sink.lines()[before:]
        return line


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(**settings: Any) -> Bench:
        made.append(Bench(**settings))
        return made[-1]

    yield bench
    for one in made:
        one.logs.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def ended(change: Change, seconds: float = 0.5, status: str | None = None) -> RunEnded:
    return RunEnded(change, seconds, status or change.after)


RUN = make_run(type="email.send", queue="mail", attempt=2)
WHO = {"job_id": str(JOB), "type": "email.send", "queue": "mail", "attempt": 2, "worker": str(WORKER)}
BOOM = Failure("ValueError", "no\n  such \x1b[31m user", "Traceback …")


def test_the_end_of_a_run_says_all_that_is_to_be_known(bench: Bench) -> None:
    line = bench.line(ended(lifecycle.complete(RUN, b'"secret result"'), 1.25))
    at = datetime.fromisoformat(line.pop("ts"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert line == {
        **WHO,
        "level": "info",
        "event": "run_ended",
        "status": "completed",
        "cause": "completed",
        "seconds": 1.25,
    }


@pytest.mark.parametrize(
    ("change", "status", "level"),
    [
        (lifecycle.fail(RUN, BOOM, 1.0), None, "warning"),
        (lifecycle.fail(make_run(attempt=5), BOOM, 1.0), None, "error"),
        (lifecycle.discard(RUN, BOOM), None, "error"),
        (lifecycle.fail(RUN, BOOM, 1.0), "cancelled", "info"),
        (lifecycle.cancel(RUN, "not wanted"), None, "info"),
        (lifecycle.snooze(RUN, 5.0), None, "info"),
    ],
)
def test_the_level_follows_the_status_as_written(bench: Bench, change: Change, status: str | None, level: str) -> None:
    line = bench.line(ended(change, status=status))
    assert (line["level"], line["status"]) == (level, status or change.after)
    if change.failure:
        assert line["error"] == "ValueError: no such �[31m user"
    if change.reason:
        assert line["reason"] == "not wanted"


def test_error_texts_are_cut(bench: Bench) -> None:
    line = bench.line(ended(lifecycle.fail(RUN, Failure("E", "x" * 100_000), 1.0)))
    assert len(line["error"]) == logs.TEXT_LIMIT
    assert line["error"].endswith("x…")


def test_one_request_is_one_line(bench: Bench) -> None:
    line = bench.line(JobsEnqueued([JOB], ["a"], ["default"]))
    assert (line["job_id"], line["type"], line["queue"], line["level"]) == (str(JOB), "a", "default", "info")
    assert "count" not in line
    line = bench.line(JobsEnqueued([JOB] * 3, ["a", "b", "a"], ["q", "default", "q"]))
    assert (line["count"], line["types"], line["queue"]) == (3, {"a": 2, "b": 1}, "default,q")
    assert "job_id" not in line


def samples() -> list[Event]:
    """One of every event there is; a new event without a sample fails."""
    error = RuntimeError("bug")
    change = lifecycle.complete(RUN, None)
    values: dict[str, Any] = {
        "ids": [JOB],
        "types": ["a"],
        "queues": ["q"],
        "queue": "q",
        "id": JOB,
        "action": "retry",
        "before": "failed",
        "after": "pending",
        "run": RUN,
        "change": change,
        "seconds": 0.5,
        "status": "completed",
        "worker": WORKER,
        "successor": JOB,
        "count": 2,
        "server": "redis",
        "loop": "fetcher",
        "stack": "File …",
        "concurrency": 50,
        "running": 3,
        "released": 1,
        "pid": 7,
        "name": "psql",
        "table": "jobs_done_1",
        "rows": 5,
        "method": "POST",
        "path": "/jobs",
        "request_id": "r",
        "level": "error",
        "message": "hello",
        "fields": {},
    }
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    texts = {"ServerAway": "refused"}
    return [
        kind(
            *[
                texts.get(kind.__name__, error) if f == "error" else values[f]
                for f in kind.__struct_fields__
                if f != "replayed"
            ]
        )
        for kind in kinds
        if kind is not Event
    ]


@pytest.mark.parametrize("event", samples(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_every_event_makes_one_line(make: Callable[..., Bench], event: Event, log_format: str) -> None:
    bench = make(log_level="debug", log_format=log_format)
    bench.events.emit(event)
    bench.logs._writer.flush()
    text = bench.sink.getvalue().decode()
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    assert (name if log_format == "json" else name.replace("_", " ")) in text
    assert "log_failed" not in text
    assert "log failed" not in text
    if log_format == "json":
        assert text.count("\n") == 1


def test_of_a_batch_each_has_its_line_and_its_level(make: Callable[..., Bench]) -> None:
    bench = make(log_level="warning")
    broken = RunEnded(None, 0.5, Status.DEAD_LETTER.value)  # type: ignore[arg-type]
    bench.events.emit(ended(lifecycle.complete(RUN, None)), broken, ended(lifecycle.fail(RUN, BOOM, 1.0)))
    lines = bench.sink.lines()
    assert [(line["event"], line["level"]) for line in lines] == [("log_failed", "error"), ("run_ended", "warning")]
    assert bench.sink.writes, "what is urgent does not wait"


def test_what_is_below_the_level_is_not_written(make: Callable[..., Bench]) -> None:
    for level, expected in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        bench = make(log_level=level)
        bench.events.emit(RunStarted(RUN))
        bench.events.emit(ended(lifecycle.complete(RUN, None)))
        bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
        bench.events.emit(HandlerLog(RUN, "error", "help", {}))
        bench.logs._writer.flush()
        assert len(bench.sink.lines()) == expected, level


def test_payloads_are_never_logged(make: Callable[..., Bench]) -> None:
    bench = make(log_level="debug")
    run = make_run(payload='{"card": "confidential"}')
    for event in (
        RunStarted(run),
        ended(lifecycle.complete(run, b'"confidential"')),
        ended(lifecycle.fail(run, BOOM, 1.0)),
        events.RunRefused(lifecycle.complete(run, b'"confidential"')),
        events.RunStuck(run),
        HandlerLog(run, "info", "hello", {}),
    ):
        bench.events.emit(event)
    bench.logs._writer.flush()
    assert len(bench.sink.lines()) == 6
    assert "confidential" not in bench.sink.getvalue().decode()


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "DB_PASSWORD",
        "client_secret",
        "accessToken",
        "Authorization",
        "cookie",
        "api_key",
        "X-Api-Key",
        "apikey",
    ],
)
def test_secrets_are_masked_at_any_depth(bench: Bench, key: str) -> None:
    fields: dict[str, Any] = {key: "s3", "headers": [{key: "s3", "n": 1}], "plain": "kept"}
    line = bench.line(HandlerLog(RUN, "info", "hello", fields))
    assert line["fields"] == {key: "***", "headers": [{key: "***", "n": 1}], "plain": "kept"}
    assert fields[key] == "s3"


class Login(msgspec.Struct):
    user: str
    password: str


def test_structs_are_masked_too_and_what_lies_very_deep_is_left_out(bench: Bench) -> None:
    deep: Any = {"password": "s3"}
    for _ in range(4):
        deep = [deep]
    line = bench.line(HandlerLog(RUN, "info", "hello", {"login": Login("ann", "s3"), "deep": deep}))
    assert line["fields"]["login"] == {"user": "ann", "password": "***"}
    assert line["fields"]["deep"] == [[["…"]]]


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError


def cyclic() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    return endless


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Awkward(),
        {1, 2},
        b"\xff",
        "\ud800",
        "a\x00b",
        10**40,
        float("nan"),
        cyclic(),
        {Awkward(): 1},
        datetime.now(UTC),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_handler_may_log_anything(make: Callable[..., Bench], value: Any, log_format: str) -> None:
    bench = make(log_format=log_format)
    bench.events.emit(HandlerLog(RUN, "info", "hello \ud800\x1b[2J\nthere", {"value": value}))
    bench.logs._writer.flush()
    (row,) = bench.sink.getvalue().decode().splitlines()
    assert "\x1b[2J" not in row
    if log_format == "json":
        json.loads(row)


# --- the writer ---


async def test_lines_wait_for_company_but_not_long(bench: Bench) -> None:
    for _ in range(10):
        bench.events.emit(ended(lifecycle.complete(RUN, None)))
    assert bench.sink.writes == 0
    assert await asyncio.to_thread(bench.sink.written.wait, 5)
    assert (bench.sink.writes, len(bench.sink.lines())) == (1, 10)
    bench.sink.written.clear()
    bench.events.emit(ended(lifecycle.complete(RUN, None)))
    assert await asyncio.to_thread(bench.sink.written.wait, 5)
    assert (bench.sink.writes, len(bench.sink.lines())) == (2, 11)


async def test_a_full_buffer_is_written_at_once(bench: Bench) -> None:
    while bench.sink.writes == 0:
        bench.events.emit(ended(lifecycle.complete(RUN, None)))
    assert logs.BUFFER <= len(bench.sink.getvalue()) < logs.BUFFER + 1_000


async def test_a_warning_is_written_at_once_with_what_waited(bench: Bench) -> None:
    bench.events.emit(ended(lifecycle.complete(RUN, None)))
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    assert [line["level"] for line in bench.sink.lines()] == ["info", "warning"]


async def test_closing_writes_what_waited(bench: Bench) -> None:
    bench.events.emit(ended(lifecycle.complete(RUN, None)))
    bench.logs.close()
    assert len(bench.sink.lines()) == 1
    bench.events.emit(ended(lifecycle.complete(RUN, None)))  # late, when no timer may come any more
    assert len(bench.sink.lines()) == 2


def test_without_a_loop_nothing_waits(bench: Bench) -> None:
    bench.events.emit(ended(lifecycle.complete(RUN, None)))
    assert len(bench.sink.lines()) == 1


def test_a_loop_that_is_gone_keeps_no_line(bench: Bench) -> None:
    async def emit() -> None:
        bench.events.emit(ended(lifecycle.complete(RUN, None)))

    asyncio.run(emit())
    bench.events.emit(ended(lifecycle.complete(RUN, None)))
    assert len(bench.sink.lines()) == 2


async def test_threads_lose_no_line(bench: Bench) -> None:
    def many() -> None:
        for _ in range(2_000):
            bench.events.emit(HandlerLog(RUN, "info", "hello", {}))

    await asyncio.gather(*[asyncio.to_thread(many) for _ in range(4)])
    bench.logs.close()
    assert len(bench.sink.lines()) == 8_000


def test_a_broken_output_is_not_our_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.sink.broken = True
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    bench.sink.broken = False
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    assert len(bench.sink.lines()) == 1
    bench.sink.close()
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    bench.logs._writer._stream = None
    monkeypatch.setattr(sys, "stdout", None)
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))


# --- text, and the standard library's logging ---


def test_text_for_people(make: Callable[..., Bench]) -> None:
    bench = make(log_format="text")
    bench.events.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    text = bench.sink.getvalue().decode()
    assert re.match(r"^\d\d:\d\d:\d\d\.\d{3} warning run ended     job_id=", text)
    assert "status=failed" in text
    assert "error=ValueError: no such" in text
    assert "\x1b" not in text


class Terminal:
    def __init__(self, sink: Sink) -> None:
        self.buffer = sink

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [(False, True), (True, False)])
def test_a_terminal_gets_coloured_text(monkeypatch: pytest.MonkeyPatch, no_color: bool, coloured: bool) -> None:
    sink = Sink()
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", Terminal(sink))
    hub = Events()
    log = logs.setup(Settings(), hub)
    hub.emit(ended(lifecycle.fail(RUN, BOOM, 1.0)))
    log.close()
    assert (b"\x1b[33mwarning" in sink.getvalue()) is coloured
    assert b"run ended" in sink.getvalue()


@pytest.mark.parametrize("name", ["uvicorn.error", "litestar", "asyncio", "sqlalchemy.pool", "somebody.elses"])
def test_warnings_of_libraries_become_lines(bench: Bench, name: str) -> None:
    logging.getLogger(name).info("not this")
    try:
        raise ValueError("inner\nlines")
    except ValueError:
        logging.getLogger(name).exception("it %s", "broke")
    logging.getLogger(name).warning("careful")
    first, second = bench.sink.lines()
    assert (first["level"], first["event"], first["logger"], first["message"]) == ("error", "library", name, "it broke")
    assert first["error"] == "ValueError: inner lines"
    assert "raise ValueError" in first["traceback"]
    assert (second["level"], second["message"]) == ("warning", "careful")


def test_a_library_that_logs_nonsense_is_heard_all_the_same(bench: Bench) -> None:
    record = logging.LogRecord("some.library", logging.WARNING, "", 0, "%d of them", ("not a number",), None)
    bench.logs._bridge.emit(record)  # past pytest's own handler, which raises
    (line,) = bench.sink.lines()
    assert (line["message"], line["error"]) == ("%d of them", "TypeError")


def test_after_closing_libraries_are_let_go(bench: Bench) -> None:
    bench.logs.close()
    logging.getLogger("uvicorn.error").warning("careful")
    assert bench.sink.lines() == []
