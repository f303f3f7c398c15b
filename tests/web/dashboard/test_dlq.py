"""Dead letters: look, retry one, some, or all that match."""

from __future__ import annotations

import httpx

from jobflow.pool import Connection
from tests.support.pages import visit
from tests.support.rows import add_job, status_of
from tests.support.waiting import until

PATH = "/dashboard/dlq"


async def test_it_lists_the_dead_and_nothing_else(http: httpx.AsyncClient, database: Connection) -> None:
    dead = await add_job(database, "dead_letter", error_type="NoHandler", error_message="nobody")
    await add_job(database, "cancelled")
    page = await visit(http, PATH)
    assert f"/dashboard/jobs/{dead}" in page.links
    assert page.text.count("NoHandler") == 1
    assert "1 job" in page.text
    assert "Retry all of them" in page.text


async def test_selected_ones_are_retried_and_the_list_comes_back(http: httpx.AsyncClient, database: Connection) -> None:
    chosen, spared = [await add_job(database, "dead_letter") for _ in range(2)]
    page = await visit(http, PATH)
    asked = await page.submit("/dashboard/jobs", ("id", str(chosen)), ("action", "retry"))
    done = await asked.submit("/dashboard/jobs")
    assert done.path == PATH
    assert "Retry: 1 of 1 job." in done.text
    assert await status_of(database, chosen) != "dead_letter"
    assert await status_of(database, spared) == "dead_letter"


async def test_all_that_match_are_retried_once_it_was_said_how_many(
    http: httpx.AsyncClient, database: Connection
) -> None:
    chosen = [await add_job(database, "dead_letter", error_message="no luck", error_type="E") for _ in range(3)]
    spared = await add_job(database, "dead_letter", error_message="other", error_type="E")
    page = await visit(http, f"{PATH}?error=luck")
    assert "Retry all that match" in page.text
    asked = await page.submit(f"{PATH}/retry")
    assert "Retry 3 jobs?" in asked.text
    assert "error luck" in asked.text
    assert [await status_of(database, id) for id in chosen] == ["dead_letter"] * 3

    done = await asked.submit(f"{PATH}/retry")
    assert "Retrying 3 jobs, newest first." in done.text
    assert done.path == f"{PATH}?error=luck"

    async def left() -> list[str | None]:
        return [status for id in chosen if (status := await status_of(database, id)) == "dead_letter"]

    await until(left, lambda found: not found)
    assert await status_of(database, spared) == "dead_letter"


async def test_all_of_them(http: httpx.AsyncClient, database: Connection) -> None:
    for _ in range(2):
        await add_job(database, "dead_letter")
    asked = await (await visit(http, PATH)).submit(f"{PATH}/retry")
    assert "Retry 2 jobs?" in asked.text
    assert "All dead letters." in asked.text
    assert "Retrying 2 jobs" in (await asked.submit(f"{PATH}/retry")).text


async def test_a_filter_that_a_redrive_cannot_follow_offers_none(http: httpx.AsyncClient, database: Connection) -> None:
    await add_job(database, "dead_letter", payload='{"a": 1}')
    page = await visit(http, f"{PATH}?payload=a%3D1")
    assert "1 job" in page.text
    assert "Retry all" not in page.text


async def test_a_bad_filter_is_refused(http: httpx.AsyncClient, database: Connection) -> None:
    await add_job(database, "dead_letter")
    page = await visit(http, PATH)
    for name, value in (("created_after", "yesterday"), ("queue", "No Queue"), ("error", "x" * 201)):
        assert (await page.submit(f"{PATH}/retry", (name, value))).status == 422
