"""What a person does with the dashboard, from the form to the dead letters and back."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.async_api import Page, expect

from jobflow.embedded import Urls
from jobflow.pool import Connection
from tests.browser.conftest import OpenTab
from tests.support.process import processes
from tests.support.rows import add_job, ago, status_of
from tests.support.servers import with_database
from tests.support.waiting import until


async def test_a_job_from_the_form_to_its_result(tab: Page, open_tab: OpenTab) -> None:
    async with open_tab() as list_tab:
        await list_tab.goto("/dashboard/jobs?type=sum")
        await expect(list_tab.get_by_text("Nothing matches.")).to_be_visible()

        await tab.goto("/dashboard")
        await tab.get_by_role("banner").get_by_role("link", name="New job").click()
        await tab.get_by_label("Type", exact=True).fill("sum")
        await tab.keyboard.press("Tab")  # the fields of the type appear
        await tab.get_by_label("a", exact=True).fill("20")
        await tab.get_by_role("spinbutton", name="b optional").fill("22")
        await tab.get_by_role("button", name="Submit").click()
        await expect(tab.get_by_role("status")).to_have_text("Submitted.")
        await expect(tab.locator(".title .badge")).to_have_text("completed")  # live
        await expect(tab.locator("#result-text")).to_have_text("42")

        await expect(list_tab.locator("tbody tr")).to_have_count(1)
        await expect(list_tab.locator("tbody .badge")).to_have_text("completed")


async def test_a_job_dies_and_is_retried(tab: Page, rows: Connection) -> None:
    await tab.goto("/dashboard/create?type=fail")
    await tab.get_by_label("Payload").fill('{"message": "no luck at all"}')
    await tab.get_by_role("button", name="Submit").click()
    await expect(tab.locator(".title .badge")).to_have_text("dead letter")
    await expect(tab.locator(".timeline li")).to_have_count(3)
    await tab.locator("#traceback-1 summary").click()
    await expect(tab.locator("#traceback-1")).to_contain_text("in fail")

    await tab.goto("/dashboard/dlq?error=at+all")
    await tab.locator("tbody tr input").check()
    await tab.get_by_role("button", name="Retry", exact=True).click()
    await expect(tab.get_by_role("heading", name="Retry 1 job?")).to_be_visible()
    await tab.locator("#confirm-yes").click()
    await expect(tab.get_by_role("status")).to_have_text("Retry: 1 of 1 job.")
    await expect(tab.locator("tbody :checked")).to_have_count(0)
    await expect(tab.locator("tbody tr")).to_have_count(1)  # it died again

    await tab.get_by_role("button", name="Retry all that match").click()
    await expect(tab.get_by_role("heading", name="Retry 1 job?")).to_be_visible()
    await tab.get_by_role("main").get_by_role("button", name="Retry").click()
    await expect(tab.get_by_role("status")).to_have_text("Retrying 1 job, newest first.")


async def test_buttons_of_a_job_act_in_place(tab: Page, rows: Connection) -> None:
    id = await add_job(rows, "scheduled", type="echo", run_at=ago(-5000))
    await tab.goto(f"/dashboard/jobs/{id}")
    await tab.get_by_role("button", name="Cancel").click()
    await expect(tab.get_by_role("status")).to_have_text("Cancel: done.")
    await expect(tab.locator(".title .badge")).to_have_text("cancelled")
    await tab.get_by_role("button", name="Delete").click()
    await tab.keyboard.press("Escape")
    assert await status_of(rows, id) == "cancelled"
    await tab.get_by_role("button", name="Delete").click()
    await tab.locator("#confirm-yes").click()
    await tab.wait_for_url("/dashboard/jobs")
    await expect(tab.get_by_role("status")).to_contain_text("is deleted.")


async def test_a_refusal_is_told_on_the_page(open_tab: OpenTab, rows: Connection) -> None:
    id = await add_job(rows, "scheduled", type="echo", run_at=ago(-5000))
    async with open_tab(expected=("409",)) as tab:
        await tab.goto(f"/dashboard/jobs/{id}")
        await tab.locator("#pause").click()
        await rows.execute("UPDATE jobs SET status = 'dead_letter', finished_at = now() WHERE id = $1", id)
        await tab.get_by_role("button", name="Cancel").click()
        await expect(tab.get_by_role("status")).to_contain_text("The job is dead_letter")


async def test_everything_works_without_javascript(open_tab: OpenTab, rows: Connection) -> None:
    async with open_tab(java_script_enabled=False) as tab:
        await tab.goto("/")
        await tab.get_by_role("link", name="Submit a job").click()
        await tab.get_by_label("Type", exact=True).fill("hang")
        await tab.get_by_role("button", name="Submit").click()
        await expect(tab.get_by_role("status")).to_have_text("Submitted.")

        async def shown() -> str:
            await tab.reload()
            return (await tab.locator(".title .badge").inner_text()).strip()

        await until(shown, lambda badge: badge == "dead letter")  # after its timeout

        await tab.goto("/dashboard/dlq?type=hang")
        await tab.locator("tbody tr input").check()
        await tab.get_by_role("button", name="Delete").click()
        await expect(tab.get_by_role("heading", name="Delete 1 job?")).to_be_visible()
        await tab.get_by_role("main").get_by_role("button", name="Delete").click()
        await expect(tab.get_by_role("status")).to_have_text("Delete: 1 of 1 job.")
        await expect(tab.get_by_text("Nothing matches.")).to_be_visible()

        await tab.get_by_text("Filter", exact=True).click()
        await tab.get_by_role("textbox", name="Tag").fill("none")
        await tab.get_by_role("button", name="Apply").click()
        assert tab.url.endswith("/dashboard/dlq?type=hang&tag=none")


async def test_a_locked_dashboard(open_tab: OpenTab, servers: Urls, site_database: str, tmp_path: Path) -> None:
    token = "a-token-of-visible-characters"
    with processes(tmp_path, site_database, with_database(servers.redis_url, "0")) as started:
        process = await started.start(JOBFLOW_ADMIN_TOKEN=token, WORKER_CONCURRENCY="0").ready()
        async with open_tab(url=process.url, expected=("403",)) as tab:
            await tab.goto("/dashboard/queues")
            await tab.get_by_label("Admin token").fill("not the token")
            await tab.get_by_role("main").get_by_role("button", name="Log in").click()
            await expect(tab.get_by_text("That is not the token.")).to_be_visible()
            await tab.get_by_label("Admin token").fill(token)
            await tab.get_by_role("main").get_by_role("button", name="Log in").click()
            await tab.wait_for_url("**/dashboard/queues")
            await expect(tab.locator("#pulse")).to_have_attribute("data-state", "live")  # the stream takes the cookie
            await tab.get_by_role("button", name="Log out").click()
            await tab.wait_for_url("**/login")


async def test_the_search_box_and_keys(tab: Page, api: httpx.AsyncClient) -> None:
    id = (await api.post("/jobs", json={"type": "noop", "delay": 5000, "tags": ["keys"]})).json()["id"]
    await api.post("/jobs", json={"type": "noop", "delay": 5000, "tags": ["keys"]})
    await tab.goto("/dashboard/jobs?tag=keys")
    await tab.keyboard.press("j")
    await tab.keyboard.press("j")
    await tab.keyboard.press("x")
    await expect(tab.locator(f"#pick-{id}")).to_be_checked()
    await tab.keyboard.press("/")
    await expect(tab.locator("#find")).to_be_focused()
    await tab.keyboard.type(id)
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"/dashboard/jobs/{id}")


async def test_the_help_sheet_names_the_keys_and_they_lead_there(tab: Page) -> None:
    await tab.goto("/dashboard")
    await tab.keyboard.press("?")
    sheet = tab.get_by_role("dialog", name="Keys")
    await expect(sheet).to_be_visible()
    await expect(sheet.get_by_role("button", name="Close")).to_be_focused()
    await tab.keyboard.press("/")  # keys rest while it is open
    await expect(sheet).to_be_visible()
    await tab.keyboard.press("Escape")
    await expect(sheet).to_be_hidden()

    for key, path in (
        ("j", "/dashboard/jobs"),
        ("d", "/dashboard/dlq"),
        ("w", "/dashboard/workers"),
        ("n", "/dashboard/create"),
    ):
        await tab.keyboard.press("g")
        await tab.keyboard.press(key)
        await tab.wait_for_url(path)
        await tab.locator("body").click(position={"x": 5, "y": 400})  # out of a field that the page has chosen


async def test_keys_can_be_switched_off(tab: Page) -> None:
    await tab.goto("/dashboard")
    await tab.get_by_role("button", name="Keys").click()
    await tab.get_by_label("Keys are on").uncheck()
    await tab.get_by_role("button", name="Close").click()
    await tab.reload()
    await tab.keyboard.press("?")
    await tab.keyboard.press("/")
    await expect(tab.locator("#find")).not_to_be_focused()
    await expect(tab.get_by_role("dialog", name="Keys")).to_be_hidden()
    await tab.get_by_role("button", name="Keys").click()
    await tab.get_by_label("Keys are on").check()
    await tab.get_by_role("button", name="Close").click()
    await tab.keyboard.press("/")
    await expect(tab.locator("#find")).to_be_focused()


async def test_pages_of_a_list_both_ways(tab: Page, rows: Connection) -> None:
    made = [await add_job(rows, "cancelled", tags=["turn"]) for _ in range(120)]
    await tab.goto("/dashboard/jobs?tag=turn")
    await expect(tab.get_by_role("link", name="Newer")).to_have_count(0)
    await tab.get_by_role("link", name="Older").click()
    await tab.get_by_role("link", name="Older").click()
    await expect(tab.locator("tbody tr")).to_have_count(20)
    await tab.get_by_role("link", name="Newer").click()
    await expect(tab.locator("tbody tr").first).to_have_id(f"job-{made[69]}")
    await tab.get_by_role("link", name="Newest").click()
    await tab.wait_for_url("/dashboard/jobs?tag=turn")


async def test_a_running_job_is_asked_to_stop(tab: Page, api: httpx.AsyncClient) -> None:
    id = (await api.post("/jobs", json={"type": "sleep", "payload": {"seconds": 60}})).json()["id"]
    await tab.goto(f"/dashboard/jobs/{id}")
    await expect(tab.locator(".title .badge").first).to_have_text("processing")
    await tab.get_by_role("button", name="Request cancel").click()
    # It may have stopped before the answer; the sentence for one that takes its time: tests/web/dashboard/test_job.py.
    await expect(tab.get_by_role("status")).to_have_text(
        re.compile(r"^Cancel: (its handler was asked to stop|done)\.$")
    )
    await expect(tab.locator(".title .badge").first).to_have_text("cancelled")  # live


async def test_the_theme_is_kept(tab: Page) -> None:
    await tab.goto("/dashboard")
    await tab.locator("#theme").click()
    await tab.locator("#theme").click()
    await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    await tab.reload()
    await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 16, 21)"
