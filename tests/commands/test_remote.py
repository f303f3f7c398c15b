"""What is said when a server is not there, refuses, or is another program."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from jobflow.cli import main
from tests.commands.conftest import Call
from tests.support.commands import free_port

TOKEN = "sixteen-letters-at-least"


class Fake(BaseHTTPRequestHandler):
    """Answers everything with what the server was told."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.server.seen.append(self.headers)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Fake) as server:
        server.answer, server.seen = (status, headers, body), []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, **settings: str) -> str:
    """What `jobflow jobs` says; it must be a refusal."""
    result = CliRunner().invoke(main, ["jobs", "--url", url], env=settings)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    return result.stderr


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = ask(url)
    assert f"No server answers at {url}" in said
    assert "start one with `jobflow dev`" in said


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "https:///jobs", "http://a b"])
def test_a_url_that_is_none(url: str) -> None:
    assert url in ask(url)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "set JOBFLOW_ADMIN_TOKEN"),
        (404, b"<html>", "is not Jobflow"),
        (200, b"<html>", "is not Jobflow"),
        (301, b"", "is not Jobflow"),
        (500, b'{"errors": 1}', "is not Jobflow"),
        (503, b'{"title": "away", "detail": "Postgres does not answer"}', "answers 503: Postgres does not answer"),
        (422, b'{"title": "no", "errors": [{"parameter": "limit", "detail": "is wrong"}]}', "\n  limit  is wrong"),
    ],
)
def test_answers_that_are_no_help(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as server:
        assert said in ask(url_of(server))


def test_the_rate_limit_says_when() -> None:
    with answering(429, b'{"title": "Too many requests"}', **{"Retry-After": "17"}) as server:
        assert "try again in 17 s" in ask(url_of(server))


def test_the_token_of_the_settings_is_sent() -> None:
    with answering(401, b"{}") as server:
        assert "not this one" in ask(url_of(server), JOBFLOW_ADMIN_TOKEN=TOKEN)
        assert server.seen[0]["Authorization"] == f"Bearer {TOKEN}"  # type: ignore[attr-defined]


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(call: Call) -> None:
    assert call("jobs", http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1").exit_code == 0


@pytest.mark.parametrize("arguments", ["jobs", "enqueue echo"])
def test_the_server_is_that_of_our_settings(arguments: str, call: Call) -> None:
    for settings in ({}, {"JOBFLOW_HOST": "127.0.0.1"}, {"JOBFLOW_HOST": "0.0.0.0"}):
        assert call(*arguments.split(), **settings).exit_code == 0
    assert call(*arguments.split(), PORT=str(free_port())).exit_code == 2
