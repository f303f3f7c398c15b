"""Health, metrics and the front page."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx
import pytest

from jobflow.errors import StoreUnavailable
from tests.web.stubs import Stage


async def test_a_running_process_is_alive_and_ready() -> None:
    for method in ("GET", "HEAD"):
        for path in ("/livez", "/readyz"):
            answer = await Stage().request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("state", ["starting", "draining", "stopped"])
async def test_not_ready_while_starting_or_draining(state: str) -> None:
    stage = Stage()
    stage.engine.state = state
    answer = await stage.request("GET", "/readyz")

    assert (answer.status_code, answer.text) == (503, state + "\n")
    assert (await stage.request("GET", "/livez")).status_code == 200


async def test_not_ready_without_postgres() -> None:
    known, found = Stage(), Stage(store_ping=StoreUnavailable("away"))
    known.engine.store_up = False
    for stage in (known, found):
        answer = await stage.request("GET", "/readyz")
        assert (answer.status_code, answer.text) == (503, "postgres is away\n")
        assert (await stage.request("GET", "/livez")).status_code == 200


async def test_a_postgres_that_hangs_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobflow.web.ops.PING", 0.02)
    stage = Stage()
    stage.store.ping = asyncio.Event().wait

    assert (await stage.request("GET", "/readyz")).status_code == 503


async def test_without_redis_it_is_ready_and_says_so() -> None:
    stage = Stage()
    stage.engine.broker_up = False
    answer = await stage.request("GET", "/readyz")

    assert (answer.status_code, answer.text) == (200, "degraded: redis\n")


@pytest.mark.parametrize(("late", "status"), [(59.0, 200), (60.0, 200), (61.0, 503)])
async def test_not_alive_when_the_loops_stand_still(late: float, status: int) -> None:
    stage = Stage()
    stage.engine.pulse = lambda: late

    assert (await stage.request("GET", "/livez")).status_code == status


async def test_verbose_has_a_line_for_each_check() -> None:
    stage = Stage()
    stage.engine.broker_up = False
    answer = await stage.request("GET", "/readyz?verbose")

    assert answer.text == "[+] engine is running\n[+] postgres\n[-] redis\ndegraded: redis\n"
    assert (await stage.request("GET", "/livez?verbose=1&exclude=x")).status_code == 200


async def test_the_front_page_says_what_this_is() -> None:
    answer = await Stage().request("GET", "/")

    assert answer.status_code == 200
    assert "POST /jobs" in answer.text


async def test_metrics_equal_sql(http: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    await http.post("/jobs", json={"type": "noop", "delay": 3600})
    await http.post("/jobs/bulk", json={"jobs": [{"type": "noop", "delay": 3600, "queue": "other"}] * 3})
    dead = (await http.post("/jobs", json={"type": "noop", "delay": 3600})).json()["id"]
    await http.post(f"/jobs/{dead}/discard")
    shown = (await http.get("/metrics")).json()

    assert shown["total_jobs"] == await database.fetchval("SELECT count(*) FROM jobs") == 5
    assert shown["dead_letter_jobs"] == shown["dlq_length"] == 1
    assert [
        shown[name] for name in ("active_jobs", "completed_jobs", "failed_jobs", "queue_length", "retry_queue_length")
    ] == [0] * 5
    assert shown["by_status"]["scheduled"] == 4
    assert {queue["name"]: queue["by_status"]["scheduled"] for queue in shown["queues"]} == {"default": 1, "other": 3}


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain; version=0.0.4",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    ],
)
async def test_prometheus_gets_its_format(http: httpx.AsyncClient, accept: str) -> None:
    answer = await http.get("/metrics", headers={"accept": accept})

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'jobflow_jobs{status="pending"} 0.0' in answer.text


async def test_the_running_process_is_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/readyz")).text == "ok\n"
    assert (await http.head("/livez")).status_code == 200
