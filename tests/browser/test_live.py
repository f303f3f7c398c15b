"""Pages that stay up to date, and hold still while somebody chooses."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
from playwright.async_api import Page, Route, expect
from uuid_utils.compat import uuid7

from jobflow.pool import Connection
from tests.browser.conftest import OpenTab
from tests.support.process import Process
from tests.support.rows import add_job, ago

QUICK = 1.5  # seconds from the answer of the API to the eye


async def submit(api: httpx.AsyncClient, tag: str, **more: object) -> str:
    answer = await api.post("/jobs", json={"type": "noop", "delay": 5000, "tags": [tag], **more})
    id: str = answer.json()["id"]
    return id


async def appears(tab: Page, api: httpx.AsyncClient, tag: str, within: float, pause: float = 0.0) -> None:
    """A new job is seen ``within`` seconds. A machine that is busy may hold one of them up, but not all."""
    took = []
    for _ in range(5):
        await tab.wait_for_timeout(pause)
        id = await submit(api, tag)
        begin = time.monotonic()
        await expect(tab.locator(f"#job-{id}")).to_be_visible()
        took.append(time.monotonic() - begin)
        if took[-1] < within:
            return
    raise AssertionError(f"five jobs appeared after {took} s")


async def test_a_new_job_appears_within_a_moment(tab: Page, api: httpx.AsyncClient) -> None:
    await tab.goto("/dashboard/jobs?tag=quick")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")
    await appears(tab, api, "quick", QUICK, pause=1_100)


async def test_the_overview_counts_along(tab: Page, api: httpx.AsyncClient) -> None:
    await tab.goto("/dashboard")
    scheduled = tab.locator(".states li", has_text="scheduled").locator("strong")
    before = int((await scheduled.inner_text()).replace(",", ""))
    await submit(api, "count")
    await expect(scheduled).to_have_text(f"{before + 1:,}")


async def test_nothing_moves_under_a_selection(tab: Page, api: httpx.AsyncClient) -> None:
    first = await submit(api, "select")
    await tab.goto("/dashboard/jobs?tag=select")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")
    await tab.locator(f"#pick-{first}").check()
    await expect(tab.locator("#picked")).to_have_text("· 1 selected")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "paused")
    second = await submit(api, "select")
    await tab.wait_for_timeout(2_500)
    await expect(tab.locator(f"#job-{second}")).to_have_count(0)
    await expect(tab.locator(f"#pick-{first}")).to_be_checked()

    await tab.locator(f"#pick-{first}").uncheck()
    await expect(tab.locator(f"#job-{second}")).to_be_visible()


async def test_an_answer_on_its_way_does_not_move_what_was_picked_meanwhile(tab: Page, api: httpx.AsyncClient) -> None:
    first = await submit(api, "flying")
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        if (await answer.text()).count('<tr id="job-') == 2:
            asked.set()
            await let_go.wait()
        await route.fulfill(response=answer)

    await tab.route("**/dashboard/jobs?**", hold)  # from the beginning: no answer gets past it
    await tab.goto("/dashboard/jobs?tag=flying")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")
    second = await submit(api, "flying")
    await asked.wait()
    await tab.locator(f"#pick-{first}").check()
    async with tab.expect_event("requestfinished"):
        let_go.set()
    await tab.unroute_all(behavior="ignoreErrors")
    await expect(tab.locator("#picked")).to_have_text("· 1 selected")
    await expect(tab.locator(f"#job-{second}")).to_have_count(0)
    await tab.locator(f"#pick-{first}").uncheck()
    await expect(tab.locator(f"#job-{second}")).to_be_visible()


async def test_a_confirmed_act_comes_before_the_refresh_that_waited_for_the_dialog(tab: Page, rows: Connection) -> None:
    id = await add_job(rows, "cancelled", type="echo")
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.method) if str(id) in request.url else None)
    await tab.goto(f"/dashboard/jobs/{id}")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")
    await tab.get_by_role("button", name="Delete").click()
    asked.clear()
    await tab.evaluate("document.addEventListener('htmx:before:request', () => { window.held = true; })")
    await tab.evaluate("void live.dispatchEvent(new CustomEvent('poll'))")
    await tab.wait_for_function("window.held")  # the page would have asked again
    await tab.locator("#confirm-yes").click()
    await tab.wait_for_url("/dashboard/jobs")
    assert asked == ["POST"]


async def test_a_list_that_becomes_as_it_was_before_an_act_is_shown(tab: Page, rows: Connection) -> None:
    """A dead letter that is retried and dies again, before the page has asked in between."""
    job: dict[str, Any] = {"id": uuid7(), "created_at": ago(9000), "finished_at": ago(8000), "tags": ["again"]}
    await add_job(rows, "dead_letter", **job)
    await tab.goto("/dashboard/dlq?tag=again")
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")
    async with tab.expect_response("**/dashboard/dlq?tag=again"):
        await tab.evaluate("void live.dispatchEvent(new CustomEvent('poll'))")
    await tab.locator("#pause").click()
    await tab.locator("tbody tr input").check()
    await tab.get_by_role("button", name="Delete").click()
    await tab.locator("#confirm-yes").click()
    await expect(tab.locator("tbody tr")).to_have_count(0)
    await add_job(rows, "dead_letter", **job)
    await tab.locator("#pause").click()
    await tab.evaluate("void live.dispatchEvent(new CustomEvent('poll'))")
    await expect(tab.locator("tbody tr")).to_have_count(1)


async def test_focus_and_what_is_unfolded_survive_a_refresh(
    tab: Page, api: httpx.AsyncClient, rows: Connection
) -> None:
    id = (await api.post("/jobs", json={"type": "fail.later", "tags": ["focus"]})).json()["id"]
    await tab.goto(f"/dashboard/jobs/{id}")
    await expect(tab.locator(".title .badge")).to_have_text("failed")
    await expect(tab.locator("#traceback-1")).to_have_attribute("open", "")  # the newest, without a click
    await tab.locator("#do-cancel").focus()
    await rows.execute("UPDATE jobs SET priority = 1 WHERE id = $1", id)
    await submit(api, "hint")
    await expect(tab.locator("#job dl")).to_contain_text("Priority 1".split()[0])
    await expect(tab.locator("dt:has-text('Priority') + dd")).to_have_text("1")
    await expect(tab.locator("#traceback-1")).to_have_attribute("open", "")
    await expect(tab.locator("#do-cancel")).to_be_focused()

    await tab.goto("/dashboard/jobs?tag=focus")
    await tab.locator(f"#link-{id}").focus()
    await tab.locator("summary", has_text="Filter").evaluate("(summary) => summary.parentElement.open = true")
    newer = await submit(api, "focus")
    await expect(tab.locator(f"#job-{newer}")).to_be_visible()
    await expect(tab.locator(f"#link-{id}")).to_be_focused()
    await expect(tab.locator("#filter")).to_have_attribute("open", "")


async def test_without_the_stream_pages_poll(tab: Page, api: httpx.AsyncClient) -> None:
    await tab.route("**/events", lambda route: route.fulfill(status=200, content_type="text/plain", body="no stream"))
    await tab.goto("/dashboard/jobs?tag=poll")
    id = await submit(api, "poll")
    await expect(tab.locator(f"#job-{id}")).to_be_visible()
    await appears(tab, api, "poll", 3.5)  # it was just asked, so this takes the time between two polls
    await expect(tab.locator("#pulse")).to_have_attribute("data-state", "polling")


async def test_the_pause_button_holds_a_page(tab: Page, api: httpx.AsyncClient) -> None:
    await tab.goto("/dashboard/jobs?tag=pause")
    await tab.locator("#pause").click()
    id = await submit(api, "pause")
    await tab.wait_for_timeout(2_200)
    await expect(tab.locator(f"#job-{id}")).to_have_count(0)
    await tab.locator("#pause").click()
    await expect(tab.locator(f"#job-{id}")).to_be_visible()


async def test_a_page_says_when_it_gets_no_answer(open_tab: OpenTab, site: Process, rows: Connection) -> None:
    id = await add_job(rows, "cancelled", tags=["stale"])
    async with open_tab(expected=("503",)) as tab:
        await tab.goto("/dashboard/jobs?tag=stale")
        await expect(tab.locator(f"#job-{id}")).to_be_visible()
        problem = '<div class="notice bad"><p>Postgres is away.</p></div>'
        headers = {"hx-retarget": "#notice", "hx-reswap": "innerHTML", "content-type": "text/html"}
        await tab.route("**/events", lambda route: route.fulfill(status=200, body=""))
        await tab.reload()
        await tab.route("**/jobs?tag=stale", lambda route: route.fulfill(status=503, headers=headers, body=problem))
        await expect(tab.locator("#pulse")).to_have_attribute("data-state", "stale")
        await expect(tab.get_by_role("status")).to_have_text("Postgres is away.")
        await expect(tab.locator(f"#job-{id}")).to_be_visible()  # what was there stays
        await tab.unroute("**/jobs?tag=stale")
        await expect(tab.get_by_role("status")).to_be_empty()
