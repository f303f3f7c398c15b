"""``/``, the overview, queues and workers."""

from __future__ import annotations

import httpx
import pytest

from jobflow.errors import StoreUnavailable
from jobflow.pool import Connection
from tests.support.pages import BROWSER, visit
from tests.support.rows import add_job, add_worker
from tests.web.stubs import Stage


async def test_the_home_page_tells_what_this_is_and_how_it_is(http: httpx.AsyncClient) -> None:
    page = await visit(http, "/")
    assert "Background jobs over REST" in page.text
    assert "Process running" in page.text
    assert page.text.count("answers") == 2
    assert "/dashboard" in page.links


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain"])
async def test_machines_get_plain_text_there(http: httpx.AsyncClient, accept: str) -> None:
    answer = await http.get("/", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/plain")


async def test_the_home_page_stands_without_postgres() -> None:
    stage = Stage(store_overview=StoreUnavailable("Postgres is away."))
    answer = await stage.request("GET", "/", headers=BROWSER)
    assert answer.status_code == 200
    assert "is away" in answer.text


async def test_the_overview_counts_and_warns(http: httpx.AsyncClient, database: Connection) -> None:
    for status, count in (("dead_letter", 3), ("cancelled", 2), ("completed", 4)):
        for _ in range(count):
            await add_job(database, status)
    await database.execute(
        "INSERT INTO queues (name, paused_at, paused_reason) VALUES ('default', now(), 'fire') "
        "ON CONFLICT (name) DO UPDATE SET paused_at = now(), paused_reason = 'fire'"
    )
    await database.execute(
        "INSERT INTO counter_minutes VALUES (date_trunc('minute', now()) - interval '5 min', 'default', '', 'pending', 1234), "
        "(date_trunc('minute', now()) - interval '5 min', 'default', 'processing', 'dead_letter', 7)"
    )
    page = await visit(http, "/dashboard")
    assert "dead letter 3" in page.text
    assert "cancelled 2" in page.text
    assert "completed 4" in page.text
    assert "Submitted 1,2" in page.text
    assert "Queue default is paused: fire. 0 ready." in page.text
    assert "became dead letters in the last hour" in page.text
    assert page.tags.count("svg") > 4


async def test_an_empty_instance_is_calm(http: httpx.AsyncClient) -> None:
    page = await visit(http, "/dashboard")
    assert "Nothing needs attention. Queues move" in page.text
    assert "No queue yet." in (await visit(http, "/dashboard/queues")).text


async def test_queues_in_numbers(http: httpx.AsyncClient, database: Connection) -> None:
    await database.execute("INSERT INTO queues (name, paused_at) VALUES ('mail', now())")
    for status in ("pending", "pending", "dead_letter"):
        await add_job(database, status, queue="mail")
    page = await visit(http, "/dashboard/queues")
    assert "mail paused 2 " in page.text
    assert "/dashboard/jobs?queue=mail" in page.links
    assert "/dashboard/dlq?queue=mail" in page.links


async def test_workers_with_their_state(http: httpx.AsyncClient, database: Connection) -> None:
    await add_worker(database, state="lost", lease=-60)
    await add_worker(database, types=[f"type.{n}" for n in range(12)], concurrency=0)
    page = await visit(http, "/dashboard/workers")
    assert "lost" in page.text
    assert "0 of 10" in page.text
    assert "API only" in page.text
    assert "and 4 more" in page.text
