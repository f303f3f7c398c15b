"""Hand-picked bad requests over all endpoints: the right 4xx, in problem form, and nothing changed."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import httpx
import pytest
from litestar import Litestar

from jobflow.app import create_app
from jobflow.settings import Settings
from jobflow.web import limits
from tests.web.published import Published

JSON = {"content-type": "application/json"}
ID = "{id}"  # of a job that exists
NOBODY = "0190b5d2-7c1e-4d3a-9f00-2b6c1d4e5f60"  # no UUIDv7, so never one of ours
PRUNED = "0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60"  # from a day that is not kept
GOOD = '{"type":"noop"}'


def job(**members: Any) -> str:
    return json.dumps({"type": "noop"} | members)


def payload(text: str) -> str:
    return f'{{"type":"noop","payload":{{"x":{text}}}}}'


def posts(status: int, *bodies: str | bytes) -> list[Any]:
    return [("POST", "/jobs", body, {}, status) for body in bodies]


def sends(status: int, headers: dict[str, Any], path: str = "/jobs") -> tuple[Any, ...]:
    return "POST", path, GOOD, headers, status


BAD = [
    # not JSON
    *posts(
        400,
        "",
        "{",
        "nonsense",
        "{'type':'noop'}",
        b"\xff\xfe",
        b'{"type":"\xff"}',
        GOOD + GOOD,
        b"\xef\xbb\xbf" + GOOD.encode(),
    ),
    # JSON that would not survive
    *posts(
        422, payload("NaN"), payload("-Infinity"), payload("1e400"), payload("9007199254740993"), payload("9" * 5000)
    ),
    *posts(422, payload('"\\u0000"'), payload('"\\ud800"'), payload('"\\udc00\\ud800"'), payload('{"a":1,"a":2}')),
    *posts(422, '{"type":"noop","type":"echo"}', payload("[" * 100 + "]" * 100), payload("[" * 100_000), "[" * 100_000),
    *posts(422, payload('{"' + "k" * 256 + '":1}'), payload('{"\\u0000":1}')),
    # members
    *posts(
        422,
        "[]",
        "null",
        "7",
        '"noop"',
        "{}",
        job(type=""),
        job(type="a b"),
        job(type="x" * 129),
        job(type=5),
        job(type=None),
    ),
    *posts(422, job(type="a\n"), job(queue="a\n"), job(type="a\u0000"), job(type="é")),
    *posts(
        422,
        job(payload=[]),
        job(payload=None),
        job(payload="{}"),
        job(queue="Upper"),
        job(queue=""),
        job(queue="x" * 65),
    ),
    *posts(422, job(priority=10), job(priority=-1), job(priority="5"), job(priority=True), job(priority=1.5)),
    *posts(
        422,
        job(max_attempts=0),
        job(max_attempts=101),
        job(timeout=0),
        job(timeout=86_401),
        job(delay=-1),
        job(delay=1e10),
    ),
    *posts(422, job(run_at="tomorrow"), job(run_at="2030-01-01T00:00:00"), job(run_at="2030-01-01T00:00:00Z", delay=1)),
    *posts(
        422, job(expires_at="2000-01-01T00:00:00Z"), job(expires_at=5), job(unique_key=""), job(unique_key="x" * 256)
    ),
    *posts(
        422,
        job(on_conflict="ignore"),
        job(tags="a"),
        job(tags=["a"] * 21),
        job(tags=[""]),
        job(tags=["x" * 65]),
        job(tags=[1]),
    ),
    *posts(
        422,
        job(prio=1),
        job(id=NOBODY),
        job(status="completed"),
        job(group_key="g"),
        job(after=[]),
        job(callback_url="http://x"),
    ),
    *posts(
        422,
        '{"type":"sum","payload":{}}',
        '{"type":"sum","payload":{"a":1,"b":-1}}',
        '{"type":"sum","payload":{"a":"1"}}',
    ),
    # size, type, coding, headers
    *posts(413, payload('"' + "x" * 256 * 1024 + '"')),
    ("POST", "/jobs/bulk", " " * (16 * 1024 * 1024 + 1), {}, 413),
    sends(415, {"content-type": "text/plain"}),
    sends(415, {"content-type": "application/x-www-form-urlencoded"}, "/dlq/retry"),
    sends(415, {"content-type": "application/json; charset=utf-16"}),
    sends(415, {"content-encoding": "gzip"}, "/jobs/bulk"),
    sends(421, {"host": "evil.example"}),
    sends(421, {"host": "localhost.evil.example:8000"}),
    sends(403, {"sec-fetch-site": "cross-site"}),
    sends(400, {"idempotency-key": ""}),
    sends(400, {"idempotency-key": "x" * 256}),
    sends(400, {"idempotency-key": "a b"}),
    sends(400, {"idempotency-key": '"unclosed'}, "/jobs/bulk"),
    sends(400, {"idempotency-key": ["a", "b"]}),
    sends(422, {}, "/jobs?priority=0"),
    # bulk
    ("POST", "/jobs/bulk", "[]", {}, 422),
    ("POST", "/jobs/bulk", "{}", {}, 422),
    ("POST", "/jobs/bulk", '{"jobs":[]}', {}, 422),
    ("POST", "/jobs/bulk", '{"jobs":{}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD}],"jobs":[{GOOD}]}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD}],"atomic":true}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD},{{"type":""}}]}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD},{payload("NaN")}]}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD},{payload("1e400")}]}}', {}, 422),
    ("POST", "/jobs/bulk", f'{{"jobs":[{GOOD},]}}', {}, 400),
    ("POST", "/jobs/bulk", '{"jobs":' + "[" * 100_000, {}, 422),
    # lists
    *(
        ("GET", f"/jobs?{query}", "", {}, 422)
        for query in (
            *(
                "limit=0",
                "limit=201",
                "limit=x",
                "limit=1&limit=2",
                "offset=-1",
                "offset=10001",
                "status=done",
                "nonsense=1",
            ),
            *("type=a%20b", "queue=Upper", "tag=%00", "created_after=yesterday", "created_before=2030-01-01T00:00:00"),
            *("payload.=1", "payload.a=%00", "error=", "offset=0&cursor=x"),
        )
    ),
    ("GET", "/jobs?cursor=garbage", "", {}, 400),
    ("GET", "/jobs?cursor=" + "A" * 32, "", {}, 400),
    ("GET", "/jobs?tag=%FF", "", {}, 400),
    ("GET", "/dlq?status=failed", "", {}, 422),
    ("GET", "/dlq?limit=1000", "", {}, 422),
    ("GET", "/metrics?format=x", "", {}, 422),
    # one job
    *(
        (method, f"/jobs/{id}{action}", "", {}, 404)
        for id in (NOBODY, "7", "%00", "0190b5d27c1e7d3a9f002b6c1d4e5f60")
        for method, action in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/retry"),
            ("POST", "/cancel"),
            ("POST", "/discard"),
        )
    ),
    ("GET", f"/jobs/{PRUNED}", "", {}, 410),
    ("POST", f"/jobs/{PRUNED}/retry", "", {}, 410),
    ("POST", f"/jobs/{ID}/cancel", '{"reason":"x"}', JSON, 422),
    ("POST", f"/jobs/{ID}/discard", "[]", JSON, 422),
    ("POST", f"/jobs/{ID}/retry", "{", JSON, 400),
    ("POST", f"/jobs/{ID}/retry?force=1", "", {}, 422),
    ("DELETE", f"/jobs/{ID}", "", {"sec-fetch-site": "same-site"}, 403),
    ("GET", f"/jobs/{ID}?wait=soon", "", {}, 422),
    # the dead
    ("POST", "/dlq/retry", "{}", {}, 422),
    ("POST", "/dlq/retry", "", {}, 400),
    ("POST", "/dlq/retry", '{"ids":[]}', {}, 422),
    ("POST", "/dlq/retry", '{"ids":["7"]}', {}, 422),
    ("POST", "/dlq/retry", '{"all":true,"queue":"default"}', {}, 422),
    ("POST", "/dlq/retry", '{"status":"failed"}', {}, 422),
    # paths and methods
    ("GET", "/nothing", "", {}, 404),
    ("GET", "/queues/nobody", "", {}, 404),
    ("GET", "/queues/%2e%2e", "", {}, 404),
    ("PUT", "/jobs", GOOD, {}, 405),
    ("PATCH", f"/jobs/{ID}", "{}", {}, 405),
    ("GET", "/jobs/bulk", "", {}, 405),
    ("POST", "/metrics", "", {}, 405),
    ("DELETE", "/queues", "", {}, 405),
    ("HEAD", "/jobs", "", {}, 405),
]


async def state(database: asyncpg.Connection) -> list[Any]:
    tables = ("jobs", "jobs_done", "idempotency_keys", "job_attempts")
    rows = [await database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]
    return [[row[0] for row in found] for found in rows]


async def test_r39_bad_requests_are_refused_and_change_nothing(
    http: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    assert len(BAD) >= 40
    published = Published((await http.get("/openapi.json")).json())
    there = (await http.post("/jobs", json={"type": "noop", "delay": 3600})).json()["id"]
    before, total = await state(database), (await http.get("/metrics")).json()["total_jobs"]
    wrong = []
    for method, path, body, headers, status in BAD:
        given = JSON | headers if body or path in ("/jobs", "/dlq/retry") else headers
        pairs = [(n, v) for n, values in given.items() for v in (values if isinstance(values, list) else [values])]
        answer = await http.request(method, path.replace(ID, there), content=body, headers=pairs)
        shaped = method == "HEAD" or answer.headers["content-type"] == "application/problem+json"
        told = method == "HEAD" or answer.json().get("status") == status
        named = status != 422 or bool(answer.json().get("errors"))
        as_published = not published.faults(answer)
        if not (answer.status_code == status and shaped and told and named and as_published):
            wrong.append((method, path, str(body)[:60], headers, status, answer.status_code, answer.text[:200]))

    assert not wrong, "\n".join(map(str, wrong))
    assert (await http.get("/metrics")).json()["total_jobs"] == total == 1
    assert await state(database) == before


async def test_a_cursor_fits_its_own_list_only(http: httpx.AsyncClient) -> None:
    await http.post("/jobs/bulk", json={"jobs": [{"type": "noop", "delay": 3600}] * 3})
    cursor = (await http.get("/jobs?limit=1&status=scheduled")).json()["next_cursor"]

    assert (await http.get(f"/jobs?limit=2&status=scheduled&cursor={cursor}")).status_code == 200
    for query in ("/jobs?limit=1", "/jobs?status=failed", "/dlq?limit=1", "/jobs?status=scheduled&type=noop"):
        assert (await http.get(f"{query}&cursor={cursor}")).status_code == 400


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    changes = getattr(request, "param", {})
    values = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    return Settings(**values | changes)


@pytest.mark.parametrize("settings", [{"admin_token": "a-token-of-16-or-more"}], indirect=True)
async def test_the_token_guards_the_real_thing(http: httpx.AsyncClient, app: Litestar) -> None:
    answers = [
        await http.request(method, path) for method, path in (("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/metrics"))
    ]
    assert [answer.status_code for answer in answers] == [401] * 3

    headers = {"authorization": "Bearer a-token-of-16-or-more"}
    assert (await http.post("/jobs", json={"type": "noop"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("settings", [{"rate_limit_max": 5}], indirect=True)
async def test_the_window_is_shared_by_all_processes(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 60.0)  # a busy machine must not make each process count by itself
    accepted = [await http.post("/jobs", json={"type": "noop"}) for _ in range(5)]
    assert [answer.status_code for answer in accepted] == [201] * 5
    assert accepted[-1].headers["ratelimit"].startswith('"default";r=0;t=')

    second = create_app(settings)  # its limiter needs no lifespan
    async with httpx.AsyncClient(transport=httpx.ASGITransport(second), base_url="http://localhost") as other:
        refused = await other.post("/jobs", json={"type": "noop"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "RATE_LIMIT_MAX" in refused.json()["detail"]
    assert (await http.get("/jobs")).status_code == 200  # only POSTs are counted
    await second.parts.broker.close()  # type: ignore[attr-defined]
