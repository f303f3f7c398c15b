"""The whole examination, as people see it and as scripts read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from jobflow.cli import main
from jobflow.commands.doctor import summary
from jobflow.doctor import database, queue
from jobflow.embedded import Urls
from tests.support.commands import free_port

NOWHERE = {"DATABASE_URL": "postgresql://a:secret@127.0.0.1:1/c", "REDIS_URL": "redis://:secret@127.0.0.1:1/0"}


def examine(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], env={"PORT": str(free_port())} | settings)


def checks(result: Result) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_all_is_well(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SLOW", 60_000.0)  # how busy this machine is, is no matter
    monkeypatch.setattr(database, "CLOCKS", 60.0)
    result = examine("--json", DATABASE_URL=database_url, REDIS_URL=redis_url)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    found = checks(result)
    assert list(found) == [
        *("settings", "handlers", "exposure", "port", "postgres", "schema", "clock", "connections", "durability"),
        *("redis", "redis memory", "redis data"),
    ]
    # Servers of tests are hasty.
    assert {name for name, check in found.items() if check["level"] != "ok"} == {"durability"}


def test_every_line_has_its_level_and_what_to_do() -> None:
    result = examine(**NOWHERE)
    assert result.exit_code == 1
    assert "fail  postgres      127.0.0.1:1/c does not answer" in result.stdout
    assert "→ Start PostgreSQL, or mend DATABASE_URL." in result.stdout
    assert result.stderr == "2 to mend.\n"


def test_a_wrong_setting_is_all_there_is_to_say() -> None:
    result = examine("--json", JOBFLOW_TYPO="1")
    assert result.exit_code == 1
    assert list(checks(result)) == ["settings"]
    assert "JOBFLOW_TYPO" in checks(result)["settings"]["text"]


def test_passwords_are_never_told(database_url: str, redis_url: str) -> None:
    told = examine(DATABASE_URL=database_url, REDIS_URL=redis_url).stdout + examine(**NOWHERE).stdout
    told += examine(DATABASE_URL=database_url.replace("jobflow:", "jobflow:wrong-"), REDIS_URL=redis_url).stdout
    assert "secret" not in told
    assert str(urlsplit(database_url).password) not in told


def test_the_servers_of_dev_are_found(database_url: str, servers: Urls, tmp_path: Path) -> None:
    postgres, redis = urlsplit(database_url), urlsplit(servers.redis_url)
    data = tmp_path / ".jobflow"
    for name in ("postgres", "valkey"):
        (data / name).mkdir(parents=True)
    assert checks(examine("--json"))["postgres"]["text"].startswith("DATABASE_URL is not set")
    (data / "password").write_text(f"{postgres.password}\n")
    (data / "postgres.port").write_text(f"{postgres.port}\n")
    (data / "valkey.port").write_text(f"{redis.port}\n")
    for pid_file in (data / "postgres" / "postmaster.pid", data / "valkey" / "pid"):
        pid_file.write_text(f"{os.getpid()}\n")
    found = checks(examine("--json"))
    assert found["postgres"]["text"].endswith("ms")
    assert found["redis"]["text"].endswith("ms")
    for pid_file in (data / "postgres" / "postmaster.pid", data / "valkey" / "pid"):
        pid_file.write_text(f"{2**31 - 2}\n")  # killed, and its file is still there
    assert checks(examine("--json"))["postgres"]["text"].startswith("DATABASE_URL is not set")


def test_a_module_that_prints_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "talking_jobs.py").write_text("print('hello')\n")
    assert "handlers" in checks(examine("--json", JOBFLOW_HANDLERS="talking_jobs"))


@pytest.mark.parametrize(
    ("failed", "warned", "expected"),
    [
        (0, 0, "All is well."),
        (0, 1, "It works; 1 to look at."),
        (2, 0, "2 to mend."),
        (1, 3, "1 to mend, 3 to look at."),
    ],
)
def test_the_last_line_counts(failed: int, warned: int, expected: str) -> None:
    assert summary(failed, warned) == expected
