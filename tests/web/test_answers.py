"""Real answers of every endpoint, held against the description that is published."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from litestar import Litestar

from jobflow.pool import Connection
from jobflow.web.hub import Hub
from tests.support.rows import add_job, add_worker
from tests.support.waiting import final, until
from tests.web.published import Published

HTML = {"accept": "text/html"}
LATER = {"type": "noop", "delay": 3600}


class Judge:
    """A client whose every answer must be as described."""

    def __init__(self, http: httpx.AsyncClient, published: Published) -> None:
        self._http, self.published = http, published

    async def __call__(self, method: str, path: str, status: int, **options: Any) -> Any:
        """The body of the answer, as JSON if it is that."""
        answer = await self._http.request(method, path, **options)
        assert answer.status_code == status, answer.text
        assert not self.published.faults(answer)
        return answer.json() if answer.headers.get("content-type", "").endswith("json") and answer.content else answer

    async def submit(self, **job: Any) -> str:
        id: str = (await self("POST", "/jobs", 201, json=job))["id"]
        return id

    async def ended(self, **job: Any) -> str:
        id = await self.submit(**job)
        await final(self._http, id)
        return id


@pytest.fixture
async def judge(http: httpx.AsyncClient) -> Judge:
    return Judge(http, Published((await http.get("/openapi.json")).json()))


async def act(judge: Judge, http: httpx.AsyncClient) -> None:
    """Every action, with and without success."""
    done = await judge.ended(type="sum", payload={"a": 1}, tags=["a"], queue="slow", timeout=5, unique_key="u")
    dead = await judge.ended(type="fail", max_attempts=1)
    waits = await judge.submit(**LATER, unique_key="v", expires_at="2100-01-01T00:00:00+02:00")
    failed = await judge.submit(type="fail.later")
    await until(lambda: judge("GET", f"/jobs/{failed}", 200), lambda job: job["status"] == "failed")
    assert (await judge("POST", "/jobs", 200, json=LATER | {"unique_key": "v", "on_conflict": "return"}))["id"] == waits
    await judge("POST", "/jobs", 409, json=LATER | {"unique_key": "v"})
    await judge("POST", "/jobs", 201, json={"type": "noop"}, headers={"prefer": "wait=5", "idempotency-key": "k"})
    await judge("POST", "/jobs", 422, json={"type": "echo"}, headers={"idempotency-key": "k"})
    returned = {"type": "noop", "unique_key": "v", "on_conflict": "return"}
    await judge("POST", "/jobs/bulk", 201, json={"jobs": [LATER, returned]})
    for id in (done, dead, waits, failed):
        job = await http.get(f"/jobs/{id}")
        await judge("GET", f"/jobs/{id}?wait=0", 304, headers={"if-none-match": job.headers["etag"]})
    await judge("GET", f"/jobs/{done}", 303, headers=HTML)
    await judge("GET", f"/jobs/{done}/events", 200)
    await judge("POST", f"/jobs/{done}/retry", 409)
    await judge("POST", f"/jobs/{failed}/discard", 200)
    await judge("POST", f"/jobs/{failed}/discard", 409)
    await judge("POST", f"/jobs/{waits}/cancel", 200)
    await judge("POST", f"/jobs/{waits}/retry", 200)
    await judge("GET", "/dlq?error=luck", 200)
    await judge("POST", "/dlq/retry", 202, json={"all": True})
    await judge("DELETE", f"/jobs/{done}", 204)


async def look(judge: Judge) -> None:
    """Everything that is only read."""
    for path in (
        "/jobs?limit=2",
        "/jobs?status=scheduled&offset=1",
        "/jobs?error=luck",
        "/dlq",
        "/queues",
        "/queues/slow",
    ):
        await judge("GET", path, 200)
    for path in ("/workers", "/types", "/openapi.json", "/metrics", "/docs", "/"):
        await judge("GET", path, 200)
    await judge("GET", "/", 200, headers=HTML)
    for media in ("text/plain; version=0.0.4", "application/openmetrics-text"):
        await judge("GET", "/metrics", 200, headers={"accept": media})
    for method in ("GET", "HEAD"):
        for path in ("/livez", "/readyz?verbose"):
            await judge(method, path, 200)


async def test_every_answer_is_as_described(
    judge: Judge, http: httpx.AsyncClient, app: Litestar, database: Connection
) -> None:
    runs = await add_job(database, "processing", locked_by=await add_worker(database))  # elsewhere, and does not stop
    await act(judge, http)
    await look(judge)
    await judge("POST", f"/jobs/{runs}/cancel", 202)
    hub: Hub = app.state.hub
    asyncio.get_running_loop().call_later(0.2, hub.close)  # only this ends the feed
    await judge("GET", "/events", 200)

    assert judge.published.seen >= judge.published.promised()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"type": 7}, "7 is not of type 'string'"),
        ({"created_at": "2030-01-01T00:00:00"}, "is not a 'date-time'"),
        ({"status": "done"}, "is not one of"),
        ({"surprise": 1}, "Additional properties are not allowed"),
    ],
)
async def test_the_judge_finds_what_is_not_described(judge: Judge, body: dict[str, Any], said: str) -> None:
    answer = (await judge._http.post("/jobs", json=LATER)).json() | body
    request = httpx.Request("GET", f"http://localhost/jobs/{answer['id']}")

    def shown(status: int, media: str) -> list[str]:
        headers = {"content-type": media}
        return judge.published.faults(
            httpx.Response(status, content=json.dumps(answer), headers=headers, request=request)
        )

    assert said in " ".join(shown(200, "application/json"))
    assert "is text/plain, described is" in " ".join(shown(200, "text/plain"))
    assert "is not described" in " ".join(shown(202, "application/json"))
