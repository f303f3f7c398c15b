"""A Postgres that is there and lets nobody in: every read and write is 503, and once it does again, all goes on."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from litestar import Litestar

from jobflow.settings import Settings
from tests.support.servers import admin_url
from tests.support.waiting import final, until
from tests.web.published import Published

# The database is {name}, its role {role}. What makes the server refuse, and what mends that.
REFUSALS = {
    "is not currently accepting connections": (
        ["ALTER DATABASE {name} ALLOW_CONNECTIONS false"],
        ["ALTER DATABASE {name} ALLOW_CONNECTIONS true"],
    ),
    "too many connections": (
        ["ALTER DATABASE {name} CONNECTION LIMIT 0"],
        ["ALTER DATABASE {name} CONNECTION LIMIT -1"],
    ),
    "password authentication failed": (
        ["ALTER ROLE {role} PASSWORD 'another'"],
        ["ALTER ROLE {role} PASSWORD '{password}'"],
    ),
    "does not exist": (
        ["ALTER DATABASE {name} ALLOW_CONNECTIONS false", "{cut}", "ALTER DATABASE {name} RENAME TO {name}_away"],
        ["ALTER DATABASE {name}_away RENAME TO {name}", "ALTER DATABASE {name} ALLOW_CONNECTIONS true"],
    ),
    "permission denied": (
        ["REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, {role}", "ALTER DATABASE {name} OWNER TO postgres"],
        ["ALTER DATABASE {name} OWNER TO {role}", "GRANT CONNECT ON DATABASE {name} TO PUBLIC"],
    ),
}
CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"


def asked(id: str) -> list[tuple[str, str, Any]]:
    """Everything that needs Postgres: method, path, body."""
    reads = ("/jobs", f"/jobs/{id}", f"/jobs/{id}/events", "/dlq", "/queues", "/queues/default", "/workers", "/metrics")
    return [
        *(("GET", path, None) for path in reads),
        *(("POST", f"/jobs/{id}/{action}", {}) for action in ("retry", "cancel", "discard")),
        ("DELETE", f"/jobs/{id}", {}),
        ("POST", "/jobs", {"type": "noop"}),
        ("POST", "/jobs/bulk", {"jobs": [{"type": "noop"}]}),
        ("POST", "/dlq/retry", {"all": True}),
    ]


@pytest.mark.parametrize("said", REFUSALS)
async def test_a_server_that_lets_nobody_in_is_away(
    said: str, http: httpx.AsyncClient, app: Litestar, settings: Settings
) -> None:
    place = urlsplit(settings.database_url)
    words = {"name": place.path[1:], "role": place.username, "password": place.password}
    words["cut"] = CUT.format(**words)
    admin = await asyncpg.connect(admin_url(settings.database_url), ssl=False)

    async def tell(*statements: str) -> None:
        for statement in (*statements, "{cut}"):
            await admin.execute(statement.format(**words))

    async def readiness() -> tuple[int, str]:
        answer = await http.get("/readyz")
        return answer.status_code, answer.text

    refuse, mend = REFUSALS[said]
    published = Published((await http.get("/openapi.json")).json())
    made = (await http.post("/jobs", json={"type": "noop", "delay": 3600})).json()["id"]
    try:
        await tell(*refuse)
        try:
            await until(readiness, lambda answer: answer == (503, "postgres is away\n"))
            for method, path, body in asked(made):
                answer = await http.request(method, path, json=body)
                assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                assert int(answer.headers["retry-after"]) >= 1
                assert published.faults(answer) == []
            assert said in answer.json()["detail"]  # the first ones met connections that were cut
            assert (await http.get("/livez")).status_code == 200
        finally:
            await tell(*mend)
        await until(readiness, lambda answer: answer[0] == 200)
        assert (await http.post(f"/jobs/{made}/retry")).status_code == 200
        assert (await final(http, made))["status"] == "completed"
    finally:
        await admin.close()
