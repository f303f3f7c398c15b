"""What is found in a Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobflow.doctor import queue
from jobflow.doctor.finding import Finding

GOOD: dict[str, Any] = {
    "redis_version": "7.0.15",
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 2**20,
}


def examine(url: str) -> list[Finding]:
    return asyncio.run(queue.check(url))


def test_a_redis_that_is_fine(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SLOW", 60_000.0)  # how busy this machine is, is no matter
    assert [finding.level for finding in examine(redis_url)] == ["ok", "ok", "ok"]


def test_a_redis_that_is_away() -> None:
    (found,) = examine("redis://127.0.0.1:1/0")
    assert found.level == "fail"
    assert "works without it" in found.advice


def test_a_wrong_password(redis_url: str) -> None:
    (found,) = examine(redis_url.replace("redis://:", "redis://:x"))
    assert (found.level, found.advice) == ("fail", "Mend the user or password in REDIS_URL.")


@pytest.mark.parametrize(
    ("info", "answers", "level", "part"),
    [
        ({}, 0.2, "ok", "Redis 7.0.15"),
        ({"valkey_version": "8.1.8"}, 0.2, "ok", "Valkey 8.1.8"),
        ({"redis_version": "10.0.0"}, 0.2, "ok", "Redis 10.0.0"),
        ({"redis_version": "6.2.14"}, 0.2, "fail", "6.2.14"),
        ({"role": "slave"}, 0.2, "fail", "replica"),
        ({}, 5.1, "warn", "5.1 ms"),
    ],
)
def test_the_server(info: dict[str, Any], answers: float, level: str, part: str) -> None:
    found = queue.server(GOOD | info, "cache:6379", answers)
    assert found.level == level
    assert part in found.text


@pytest.mark.parametrize(
    ("info", "level", "part"),
    [
        ({}, "ok", "no maxmemory"),
        ({"maxmemory": 2**24}, "ok", "of 16 MiB"),
        ({"maxmemory_policy": "allkeys-lru"}, "warn", "allkeys-lru"),
        ({"maxmemory": 2**20 + 1}, "warn", "100%"),
    ],
)
def test_the_memory(info: dict[str, Any], level: str, part: str) -> None:
    found = queue.memory(GOOD | info)
    assert found.level == level
    assert part in found.text


def test_persistence_is_only_noted() -> None:
    assert "append-only" in queue.persistence(GOOD | {"aof_enabled": 1}).text
    assert queue.persistence(GOOD | {"aof_enabled": 0}).level == "ok"
