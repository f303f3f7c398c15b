"""The list of jobs: filters, pages, and what is done to the selected ones."""

from __future__ import annotations

import httpx
import pytest
from uuid_utils.compat import uuid7

from jobflow.pool import Connection
from tests.support.pages import Page, visit
from tests.support.rows import add_job, ago, status_of

PATH = "/dashboard/jobs"


def ids(page: object) -> list[str]:
    text: str = page.answer.text  # type: ignore[attr-defined]
    return [part.partition('"')[0] for part in text.split('<tr id="job-')[1:]]


def link_to(page: Page, rel: str) -> str:
    return next((link["href"] for link in page.anchors if link.get("rel") == rel), "")


async def test_filters_stand_in_the_url_and_in_the_form(http: httpx.AsyncClient, database: Connection) -> None:
    wanted = await add_job(
        database, "dead_letter", type="a.b", queue="mail", tags=["x"], error_type="E", error_message="no luck"
    )
    await add_job(database, "dead_letter", type="a.c", queue="mail")
    for filter in ("type=a.b", "tag=x", "error=no+luck", "queue=mail&type=a.b", "status=dead_letter&type=a.b"):
        assert ids(await visit(http, f"{PATH}?{filter}")) == [str(wanted)], filter

    page = await visit(http, f"{PATH}?queue=mail&type=a.b")
    assert ("type", "a.b") in page.fields(PATH, "get")
    assert f"{PATH}?type=a.b" in page.links  # without the other one
    assert f"{PATH}?queue=mail" in page.links


async def test_the_filter_form_leads_to_a_short_url(http: httpx.AsyncClient, database: Connection) -> None:
    wanted = await add_job(database, "dead_letter", payload='{"user": {"id": 42}}')
    await add_job(database, "dead_letter")
    page = await (await visit(http, PATH)).submit(
        PATH, method="get", payload="user.id=42", created_after="2020-01-31T12:00"
    )
    assert page.path == f"{PATH}?payload.user.id=42&created_after=2020-01-31T12%3A00%3A00Z"
    assert ids(page) == [str(wanted)]
    assert "among the newest 100,000" in page.text
    assert ("payload", "user.id=42") in page.fields(PATH, "get")
    assert ("created_after", "2020-01-31T12:00") in page.fields(PATH, "get")


async def test_tabs_count_and_keep_the_filter(http: httpx.AsyncClient, database: Connection) -> None:
    await add_job(database, "cancelled", type="t")
    page = await visit(http, f"{PATH}?type=t&status=dead_letter")
    assert f"{PATH}?type=t&status=cancelled" in page.links
    assert f"{PATH}?type=t" in page.links
    assert "cancelled 1" in page.text
    assert "Nothing matches." in page.text


async def test_pages_lead_to_older_ones_and_back(http: httpx.AsyncClient, database: Connection) -> None:
    made = [str(await add_job(database, "cancelled")) for _ in range(7)]
    seen, path = [], f"{PATH}?limit=3"
    for _ in range(3):
        page = await visit(http, path)
        seen += ids(page)
        path = link_to(page, "next")
    assert seen == made[::-1]
    assert path == ""
    assert f"{PATH}?limit=3" == link_to(page, "first")

    page = await visit(http, link_to(page, "prev"))
    assert ids(page) == made[::-1][3:6]
    assert ids(await visit(http, link_to(page, "next"))) == made[::-1][6:]
    newer = await visit(http, link_to(page, "prev"))
    assert ids(newer) == made[::-1][:3]
    top = await visit(http, link_to(newer, "prev"))
    assert top.path == f"{PATH}?limit=3"  # the first page, where new jobs appear, under its own address
    assert not link_to(top, "prev")


async def test_pages_upwards_keep_the_filter(http: httpx.AsyncClient, database: Connection) -> None:
    made = [str(await add_job(database, "cancelled", type=f"t{n % 2}")) for n in range(8)]
    page = await visit(http, f"{PATH}?type=t1&limit=2")
    older = await visit(http, link_to(page, "next"))
    newest = await add_job(database, "cancelled", type="t1")
    newer = await visit(http, link_to(older, "prev"))
    assert ids(newer) == [made[7], made[5]]  # the page above this one, whatever has come since
    assert str(newest) not in ids(newer)
    wrong = link_to(older, "prev").replace("type=t1", "type=t0")
    assert (await visit(http, wrong)).status == 400


async def test_dead_letters_that_match_are_retried_from_here_too(http: httpx.AsyncClient, database: Connection) -> None:
    await add_job(database, "dead_letter", type="a")
    await add_job(database, "dead_letter", type="b")
    page = await visit(http, f"{PATH}?status=dead_letter&type=a")
    asked = await page.submit("/dashboard/dlq/retry")
    assert "Retry 1 job?" in asked.text
    for filter in ("", "?status=cancelled", "?status=dead_letter&status=cancelled"):
        assert "Retry all" not in (await visit(http, PATH + filter)).text


async def test_an_empty_list_says_why(http: httpx.AsyncClient) -> None:
    assert "No jobs here." in (await visit(http, PATH)).text
    assert "The newest 100,000 jobs were searched" in (await visit(http, f"{PATH}?error=x")).text


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("retry", "dead_letter", "completed"), ("cancel", "scheduled", "cancelled"), ("discard", "scheduled", "dead_letter"), ("delete", "dead_letter", None)],
)  # fmt: skip
async def test_selected_jobs_are_acted_on_after_a_question(
    http: httpx.AsyncClient, database: Connection, action: str, before: str, after: str | None
) -> None:
    chosen = [await add_job(database, before, run_at=ago(-1000)) for _ in range(2)]
    spared = await add_job(database, before, run_at=ago(-1000))
    page = await visit(http, f"{PATH}?status={before}")
    asked = await page.submit(PATH, *(("id", str(id)) for id in chosen), ("action", action))
    assert f"{action.title()} 2 jobs?" in asked.text
    assert [await status_of(database, id) for id in chosen] == [before] * 2

    done = await asked.submit(PATH)
    assert f"{action.title()}: 2 of 2 jobs." in done.text
    assert done.path == f"{PATH}?status={before}"
    for id in chosen:
        assert await status_of(database, id) in {after, "pending", "processing"} - (
            {"pending", "processing"} if action != "retry" else set()
        )
    assert await status_of(database, spared) == before
    assert f"{action.title()}:" not in (await visit(http, PATH)).text  # said once


async def test_what_is_not_possible_is_told(http: httpx.AsyncClient, database: Connection) -> None:
    done, dead = await add_job(database, "completed"), await add_job(database, "dead_letter")
    page = await visit(http, PATH)
    after = await page.submit(PATH, ("id", str(done)), ("id", str(dead)), ("action", "retry"), ("confirmed", "yes"))
    assert "Retry: 1 of 2 jobs. Not possible for 1: The job is completed" in after.text


async def test_nothing_selected_unknown_and_too_many(http: httpx.AsyncClient, database: Connection) -> None:
    id = str(await add_job(database, "cancelled"))
    page = await visit(http, PATH)
    assert "Nothing is selected." in (await page.submit(PATH, ("action", "delete"))).text
    assert (await page.submit(PATH, ("id", id), ("action", "explode"))).status == 404
    assert (await page.submit(PATH, ("id", "x"), ("action", "delete"))).status == 404
    many = [("id", f"0190b5d2-7c1e-7d3a-9f00-{n:012x}") for n in range(201)]
    assert (await page.submit(PATH, *many, ("action", "delete"))).status == 413


async def test_nobody_is_led_away_afterwards(http: httpx.AsyncClient, database: Connection) -> None:
    id = str(await add_job(database, "cancelled"))
    page = await visit(http, PATH)
    after = await page.submit(PATH, ("id", id), ("action", "delete"), ("confirmed", "yes"), back="//evil.example/")
    assert after.path == PATH


async def test_the_search_box_finds_a_job_by_its_id_and_others_by_type(
    http: httpx.AsyncClient, database: Connection
) -> None:
    id = await add_job(database, "cancelled")
    page = await visit(http, PATH)
    assert (await page.submit("/dashboard/find", id=f" {id} ")).path == f"{PATH}/{id}"
    assert (await page.submit("/dashboard/find", id="noop")).path == f"{PATH}?type=noop"
    assert (await page.submit("/dashboard/find", id="")).path == PATH
    assert (await page.submit("/dashboard/find", id=str(uuid7()))).status == 404
