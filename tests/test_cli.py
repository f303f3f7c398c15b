"""What people type: the sentences, the exit status, and that nothing is left behind."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobflow.cli import main
from jobflow.commands.common import address, read_settings
from jobflow.embedded import Urls
from jobflow.errors import SettingsError
from jobflow.settings import Settings, variables
from tests.support.commands import Command, free_port, get, running
from tests.support.servers import fetch, fresh_database

NOWHERE = {"DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c", "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for env, *_ in variables():
        monkeypatch.delenv(env, raising=False)


def call(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(main, arguments, env=settings)


@pytest.mark.parametrize(
    ("arguments", "settings", "expected"),
    [
        ("dev", {"PORT": "0"}, "PORT is wrong"),
        ("dev --port 70000", {}, "PORT is wrong"),
        ("dev", {"JOBFLOW_TYPO": "1"}, "JOBFLOW_TYPO is not a setting"),
        ("dev --host 0.0.0.0", {}, "`jobflow dev` is for this machine alone"),
        ("dev", {"JOBFLOW_HOST": "192.168.1.1"}, "`jobflow dev` is for this machine alone"),
        ("serve", {}, "DATABASE_URL is not set"),
        ("serve", {"DATABASE_URL": NOWHERE["DATABASE_URL"]}, "REDIS_URL is not set"),
        ("serve", {"DATABASE_URL": "mysql://db"}, "DATABASE_URL is wrong"),
        ("serve --host 0.0.0.0", NOWHERE, "set JOBFLOW_ADMIN_TOKEN"),
        ("serve --host 192.0.2.1", NOWHERE | {"JOBFLOW_AUTH": "off"}, "cannot listen on port 8000 of 192.0.2.1"),
        ("serve --host nowhere.invalid", NOWHERE | {"JOBFLOW_AUTH": "off"}, "JOBFLOW_HOST is wrong"),
        ("migrate", {}, "DATABASE_URL is not set"),
        ("migrate", NOWHERE, "Postgres"),
    ],
)
def test_a_refusal_is_one_sentence_and_status_2(arguments: str, settings: dict[str, str], expected: str) -> None:
    result = call(*arguments.split(), **settings)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (NOWHERE, "Postgres"),
        (NOWHERE | {"JOBFLOW_HANDLERS": "no_such_module"}, "no_such_module"),
    ],
)
def test_a_start_that_fails_says_why(settings: dict[str, str], expected: str, tmp_path: Path) -> None:
    command = Command(tmp_path, "serve", PORT=str(free_port()), **settings)
    assert command.end() == 2
    assert [line for line in command.said.splitlines() if "Error: " in line and expected in line]
    assert "Traceback" not in command.said + command.stdout.read_text()


def test_a_module_with_a_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_jobs.py").write_text("import no_such_package\n")
    command = Command(tmp_path, "serve", PORT=str(free_port()), JOBFLOW_HANDLERS="broken_jobs", **NOWHERE)
    assert command.end() == 2
    assert "broken_jobs" in command.said
    assert "Traceback" not in command.said


def test_help_shows_examples() -> None:
    for name in ("", *main.commands):
        result = call(*filter(None, [name]), "--help")
        assert result.exit_code == 0
        assert "Example" in result.stdout


def test_version() -> None:
    assert call("--version").stdout.startswith("jobflow, version ")


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PORT=8001\nRATE_LIMIT_MAX=7\nWORKER_CONCURRENCY=3\nDATABASE_URL\n")
    monkeypatch.setenv("RATE_LIMIT_MAX", "8")
    settings = read_settings(PORT=8002, JOBFLOW_HOST=None)
    assert (settings.port, settings.rate_limit_max, settings.worker_concurrency) == (8002, 8, 3)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://localhost:8000"),
        ("::1", "http://localhost:8000"),
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
        ("2001:db8::1", "http://[2001:db8::1]:8000"),
        ("[2001:db8::1]", "http://[2001:db8::1]:8000"),
        ("jobs.example", "http://jobs.example:8000"),
    ],
)
def test_the_address_people_type(host: str, expected: str) -> None:
    assert address(Settings(host=host)) == expected


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env"):
        read_settings()


def test_migrate(servers: Urls) -> None:
    with fresh_database(servers.database_url) as url:
        for _ in range(2):
            result = call("migrate", DATABASE_URL=url)
            assert result.exit_code == 0, result.stderr
        assert fetch(url, "SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_uses_the_servers_that_are_given_and_ends_with_0(
    number: signal.Signals, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    with running(tmp_path, "serve", PORT=str(port), DATABASE_URL=database_url, REDIS_URL=redis_url) as command:
        command.wait_for("Jobflow is ready")
        assert get(f"http://127.0.0.1:{port}/livez") == 200
        assert command.end(number) == 0
    assert "Traceback" not in command.said
    socket.create_server(("127.0.0.1", port)).close()


def test_dev_from_the_first_start_to_the_second(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "dev", "--port", str(port)) as first:
        first.wait_for("Preparing PostgreSQL")
        first.wait_for(f"http://localhost:{port}/dashboard")
        first.wait_for("Ctrl-C")
        assert get(f"http://127.0.0.1:{port}/livez") == 200

        again = Command(tmp_path, "dev", "--port", str(port))
        assert again.end() == 2
        assert f"Port {port} of 127.0.0.1 is in use" in again.said

        again = Command(tmp_path, "dev", "--port", str(free_port()))
        assert again.end() == 2
        assert f"process {first.process.pid}" in again.said

        assert first.end(signal.SIGINT) == 0
    assert first.left() == []

    with running(tmp_path, "dev", PORT=str(port)) as second:
        second.wait_for("Ctrl-C")
        assert "Preparing" not in second.said
        assert second.end(signal.SIGTERM) == 0
    assert second.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_first_start_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path, "dev", PORT=str(free_port())) as command:
        command.wait_for("Preparing PostgreSQL")
        assert command.end(number) == 0
    assert command.left() == []
    assert "Traceback" not in command.said


def test_reload_starts_the_application_again_and_keeps_the_servers(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "my_jobs.py").write_text("")
    with running(tmp_path, "dev", "--reload", PORT=str(port), JOBFLOW_HANDLERS="my_jobs") as command:
        command.wait_for("Ctrl-C")
        postmaster = (tmp_path / ".jobflow" / "postgres" / "postmaster.pid").read_text()
        (tmp_path / "my_jobs.py").write_text("changed = True\n")
        command.wait_for("Ctrl-C")
        assert get(f"http://127.0.0.1:{port}/livez") == 200
        assert postmaster == (tmp_path / ".jobflow" / "postgres" / "postmaster.pid").read_text()
        assert command.end(signal.SIGTERM) == 0
    assert command.left() == []
    socket.create_server(("127.0.0.1", port)).close()
