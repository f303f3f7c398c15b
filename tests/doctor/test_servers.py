"""Which servers are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobflow.doctor import servers
from jobflow.embedded import EmbeddedError
from jobflow.settings import Settings


def test_named_servers_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = Settings(database_url="postgresql://db/x", redis_url="redis://cache", data=str(tmp_path))
    assert servers.find(settings) == ([], ("postgresql://db/x", "redis://cache"))


def test_without_any_dev_would_start_its_own(tmp_path: Path) -> None:
    findings, urls = servers.find(Settings(data=str(tmp_path)))
    assert urls == ("", "")
    assert [(finding.name, finding.level) for finding in findings] == [("postgres", "ok"), ("redis", "ok")]


def test_without_programs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise EmbeddedError("Valkey was not found: install it.")

    monkeypatch.setattr(servers, "find_redis", missing)
    _, redis = servers.find(Settings(data=str(tmp_path)))[0]
    assert (redis.level, redis.advice) == ("warn", "Valkey was not found: install it.")
