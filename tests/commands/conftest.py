"""A real server for the commands that speak to one, and an empty place to type them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobflow.cli import main
from jobflow.embedded import Urls
from jobflow.settings import variables
from tests.support.commands import free_port, running
from tests.support.servers import fresh_database, with_database

Call = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for env, *_ in variables():
        monkeypatch.delenv(env, raising=False)


@pytest.fixture(scope="package")
def port(servers: Urls, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a server with the tests' handlers listens."""
    with fresh_database(servers.database_url, template) as url:
        settings = {
            "DATABASE_URL": url,
            "REDIS_URL": with_database(servers.redis_url, "0"),
            "JOBFLOW_HANDLERS": "tests.support.handlers",
            "RATE_LIMIT_MAX": "1000000",
            "PYTHONPATH": str(ROOT),
        }
        port = free_port()
        with running(tmp_path_factory.mktemp("server"), "serve", PORT=str(port), **settings) as command:
            command.wait_for("Jobflow is ready")
            yield port


@pytest.fixture
def call(port: int) -> Call:
    """Type a command at the machine where that server runs."""

    def type_in(*arguments: str, stdin: str | None = None, **settings: str) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env={"PORT": str(port)} | settings)

    return type_in
