"""What is found without the servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from jobflow.doctor import place
from jobflow.doctor.finding import Finding
from jobflow.settings import Settings
from tests.support.commands import free_port


def examine(**settings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in place.check(Settings(**{"port": free_port()} | settings))}


@contextmanager
def answering(status: int, **headers: str) -> Iterator[int]:
    """A server that gives this answer to one request; the port of it."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(b"a word")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield server.server_port
        thread.join()


def test_nothing_is_wrong() -> None:
    assert {finding.level for finding in examine().values()} == {"ok"}


def test_settings_that_were_changed_are_named_without_their_values() -> None:
    text = examine(admin_token="a-secret-of-sixteen")["settings"].text
    assert "JOBFLOW_ADMIN_TOKEN" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"host": "127.0.0.1"}, "ok"),
        ({"host": "0.0.0.0"}, "fail"),
        ({"host": "0.0.0.0", "auth": "off"}, "warn"),
        ({"host": "0.0.0.0", "auth": "off", "admin_token": "sixteen-letters-"}, "ok"),
    ],
)
def test_exposure(settings: dict[str, str], level: str) -> None:
    assert examine(**settings)["exposure"].level == level


def test_handlers_that_cannot_be_imported() -> None:
    found = examine(handlers="no_such_module")["handlers"]
    assert found.level == "fail"
    assert "no_such_module" in found.text


def test_a_port_of_another_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=lambda: other.accept()[0].close())  # hangs up without a word
        thread.start()
        assert examine(port=other.getsockname()[1])["port"].level == "fail"
        thread.join()
    with answering(200) as port:
        assert examine(port=port)["port"].level == "fail"


def test_a_port_of_ours() -> None:
    with answering(200, X_Request_Id="1") as port:
        assert examine(port=port)["port"] == ("port", "ok", f"Jobflow answers on {port}: a word", "")
    with answering(503, X_Request_Id="1") as port:
        assert examine(port=port)["port"].level == "warn"
