"""scripts/load_test.py against a small HTTP server that plays what can go wrong. Time is a number here, so no test waits."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.scripts import load_script

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "load_test.py"


load_test = load_script("load_test")


class FakeClock:
    """Sleeping only moves the hand."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class FakeServer(ThreadingHTTPServer):
    """Accepts jobs. ``plays`` names what it does to the next POSTs; ``rounds`` is how often a job is seen unfinished."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.plays: list[str] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}  # jobs by Idempotency-Key
        self.posts = 0
        self.gets: list[dict[str, list[str]]] = []
        self.rounds = 0
        self.slow = ""  # how the tags end whose jobs take these rounds; others are final at once
        self.ends_as = {"image.process": "dead_letter"}
        self.token = ""
        self.ready = 200
        self.watched = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [job for jobs in self.answers.values() for job in jobs]

    def total(self, tag: str, status: str) -> int:
        found = [job for job in self.jobs if tag in job["tags"]]
        if self.rounds > 0 and tag.endswith(self.slow):
            return len(found) if status == "processing" else 0
        return sum(1 for job in found if self.ends_as.get(job["type"], "completed") == status)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: Any, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/readyz":
            return self.answer(self.server.ready, {"status": "ready"})
        query = parse_qs(parts.query)
        with self.server.lock:
            self.server.gets.append(query)
            total = self.server.total(query["tag"][0], query["status"][0])
            if query["status"] == ["processing"]:
                self.server.rounds -= 1
                self.server.watched.set()
        return self.answer(200, {"items": [], "next_cursor": None, "total": total})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        with self.server.lock:
            self.server.posts += 1
            play = self.server.plays.pop(0) if self.server.plays else "accept"
            if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
                return self.answer(401, {"title": "Unauthorized"})
            if play == "dropped":  # before it was read, so to speak
                self.close_connection = True
                return None
            if play == "limited":
                return self.answer(429, {"title": "Too Many Requests"}, Retry_After="7")
            if play == "away":
                return self.answer(503, {"title": "Service Unavailable"}, Retry_After="3")
            if play == "in flight":
                return self.answer(409, {"title": "Conflict"}, Retry_After="1")
            if play == "invalid":
                errors = [{"pointer": "/payload/to", "detail": "is missing"}]
                return self.answer(422, {"title": "Unprocessable", "detail": "It does not fit.", "errors": errors})
            replayed = key in self.server.answers
            jobs = body["jobs"] if self.path == "/jobs/bulk" else [body]
            self.server.answers.setdefault(key, jobs)
            if play == "lost":  # accepted, and the answer never arrives
                self.close_connection = True
                return None
        ids = [{"id": f"{key}-{n}"} for n in range(len(jobs))]
        return self.answer(
            201,
            {"jobs": ids} if self.path == "/jobs/bulk" else ids[0],
            **({"Idempotency_Replayed": "true"} if replayed else {}),
        )


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(server: FakeServer, *args: str, clock: FakeClock | None = None) -> int:
    return int(load_test.main(["--url", server.url, *args], clock or FakeClock()))


def test_a_third_each_of_the_demo_types(server: FakeServer) -> None:
    assert run(server, "--count", "9") == 0
    assert Counter(job["type"] for job in server.jobs) == {"email.send": 3, "report.generate": 3, "image.process": 3}
    assert all(isinstance(job["payload"], dict) for job in server.jobs)


def test_one_type_with_its_own_payload(server: FakeServer) -> None:
    assert run(server, "--count", "3", "--type", "resize", "--payload", '{"width": 8}') == 0
    assert [(job["type"], job["payload"]) for job in server.jobs] == [("resize", {"width": 8})] * 3


def test_every_post_has_a_key_of_its_own(server: FakeServer) -> None:
    run(server, "--count", "40")
    assert server.posts == 40
    assert len(server.answers) == 40


def test_bulk_puts_a_thousand_jobs_into_each_post(server: FakeServer) -> None:
    assert run(server, "--count", "2500", "--bulk") == 0
    assert sorted(len(jobs) for jobs in server.answers.values()) == [500, 1000, 1000]


def test_no_tag_has_more_jobs_than_a_total_counts_exactly(server: FakeServer) -> None:
    run(server, "--count", "12000", "--bulk")
    tags = Counter(tag for job in server.jobs for tag in job["tags"])
    assert sorted(tags.values()) == [2000, 5000, 5000]


def test_a_rate_limit_is_waited_out_and_named_once(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plays = ["limited", "limited", "accept", "limited"]
    clock = FakeClock()
    assert run(server, "--count", "5", "--concurrency", "1", clock=clock) == 0
    out = capsys.readouterr().out
    assert clock.slept == [7.0, 7.0, 7.0]
    assert out.count("RATE_LIMIT_MAX") == 2  # one line: the name, and an example
    assert "3 × 429" in out
    assert len(server.jobs) == 5


def test_a_503_is_sent_again_after_retry_after(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plays = ["away", "away"]
    clock = FakeClock()
    assert run(server, "--count", "1", clock=clock) == 0
    assert clock.slept == [3.0, 3.0]
    assert "2 × 503" in capsys.readouterr().out


def test_a_lost_answer_enqueues_nothing_twice(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plays = ["lost", "accept", "lost"]
    assert run(server, "--count", "6", "--concurrency", "1") == 0
    assert len(server.jobs) == 6
    assert "2 retries, 2 of them already accepted" in capsys.readouterr().out


def test_a_dropped_connection_is_tried_again_with_growing_waits(server: FakeServer) -> None:
    server.plays = ["dropped"] * 3
    clock = FakeClock()
    assert run(server, "--count", "1", clock=clock) == 0
    assert clock.slept == [0.1, 0.2, 0.4]
    assert len(server.jobs) == 1


def test_a_key_in_flight_is_tried_again(server: FakeServer) -> None:
    server.plays = ["in flight"]
    assert run(server, "--count", "1") == 0
    assert len(server.jobs) == 1


def test_a_server_that_never_answers_again_is_given_up(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plays = ["accept"] + ["dropped"] * 100
    assert run(server, "--count", "2", "--concurrency", "1") == 2
    captured = capsys.readouterr()
    assert "stopped answering" in captured.err
    assert "1 of 2 jobs" in captured.out


def test_a_refused_job_stops_the_run_with_the_reason(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plays = ["invalid"]
    assert run(server, "--count", "5", "--concurrency", "1") == 2
    assert capsys.readouterr().err == "The server answered 422: /payload/to is missing\n"
    assert server.posts == 1


def test_poll_watches_until_all_are_final(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.rounds = 3
    assert run(server, "--count", "9", "--poll") == 0
    out = capsys.readouterr().out
    assert "finished  9 jobs" in out
    assert "completed 6, dead_letter 3" in out


def test_poll_costs_a_handful_of_requests_however_many_jobs(server: FakeServer) -> None:
    server.rounds = 4
    assert run(server, "--count", "12000", "--bulk", "--poll") == 0
    assert len(server.gets) < 300
    assert all(query["limit"] == ["1"] for query in server.gets)


def test_poll_does_not_ask_again_for_tags_that_are_done(server: FakeServer) -> None:
    server.rounds, server.slow = 40, ":1"
    assert run(server, "--count", "6000", "--bulk", "--poll", "--concurrency", "1") == 0
    asked = Counter(query["tag"][0][-2:] for query in server.gets)
    assert asked[":0"] < asked[":1"] / 2


def test_poll_asks_only_for_the_jobs_of_this_run(server: FakeServer) -> None:
    server.answers["someone else"] = [{"type": "email.send", "tags": ["other"]}]
    assert run(server, "--count", "3", "--poll") == 0
    assert {tag for query in server.gets for tag in query["tag"]} == {
        tag for job in server.jobs[1:] for tag in job["tags"]
    }


def test_poll_with_a_job_left_unfinished_is_exit_1(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.rounds = 1_000_000
    clock = FakeClock()
    assert run(server, "--count", "4", "--poll", "--timeout", "20", clock=clock) == 1
    assert "4 jobs are not final" in capsys.readouterr().out
    assert clock.time >= 120.0


def test_where_there_is_no_terminal_progress_is_lines(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.rounds = 30
    run(server, "--count", "3", "--poll")
    assert "enqueued 3 of 3 · final 0 (processing 3)" in capsys.readouterr().out


def test_no_server_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        url = server.url
    assert load_test.main(["--url", url], FakeClock()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"No server answers at {url}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_another_server_is_named_as_such(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.ready = 404
    assert run(server) == 2
    assert "is not Jobflow" in capsys.readouterr().err


def test_the_token_is_sent(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.token = "sixteen letters!"
    assert run(server, "--count", "1") == 2
    assert "--token" in capsys.readouterr().err
    assert run(server, "--count", "1", "--token", "sixteen letters!") == 0


@pytest.mark.parametrize(
    "args",
    [
        ["--count", "0"],
        ["--count", "many"],
        ["--concurrency", "0"],
        ["--url", "localhost:8000"],
        ["--url", "ftp://localhost"],
        ["--payload", "[]"],
        ["--payload", "{"],
        ["--timeout", "-1"],
        ["--what"],
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_test.main(args)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_test.main(["--help"])
    assert caught.value.code == 0
    assert "scripts/load_test.py --count 1000 --poll" in capsys.readouterr().out


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    def answer(value: str) -> Any:
        return load_test.httpx.Response(429, headers={"Retry-After": value})

    assert load_test.retry_after(answer("12"), 1.0) == 12.0
    assert load_test.retry_after(answer("0"), 1.0) == 0.05
    assert load_test.retry_after(answer("Wed, 21 Oct 2015 07:28:00 GMT"), 1.0) == 0.05
    assert load_test.retry_after(answer("soon"), 1.0) == 1.0
    assert load_test.retry_after(answer("nan"), 1.0) == 1.0


def test_ctrl_c_says_what_is_left(server: FakeServer) -> None:
    server.rounds = 1_000_000
    args = [sys.executable, str(SCRIPT), "--url", server.url, "--count", "4", "--poll"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert server.watched.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "4 jobs are not final" in out
    assert err == ""


class TestWithoutHttpx:
    """-I -S hides every installed package, as in a plain python3."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        (tmp_path / "scripts").mkdir()
        shutil.copy(SCRIPT, tmp_path / "scripts")
        return tmp_path

    def start(self, checkout: Path, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(checkout / "scripts" / "load_test.py"), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=60)

    def test_it_starts_again_with_the_checkouts_python(self, checkout: Path) -> None:
        python = checkout / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        python.chmod(0o755)
        done = self.start(checkout, "--count", "7", "--type", "a b")
        assert done.stdout.splitlines()[1:] == ["--count", "7", "--type", "a b"]
        assert os.path.samefile(done.stdout.splitlines()[0], checkout / "scripts" / "load_test.py")

    def test_without_an_environment_one_sentence_says_what_to_do(self, checkout: Path) -> None:
        done = self.start(checkout, "--count", "7")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "./dev run" in done.stderr

    def test_help_needs_nothing(self, checkout: Path) -> None:
        assert self.start(checkout, "--help").returncode == 0


def test_the_oldest_python_can_read_it() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
