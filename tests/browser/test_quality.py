"""Every page in light and dark and on a phone: accessible, inside its width, light, and deaf to what people write into jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from jobflow.pool import Connection
from tests.browser.conftest import OpenTab
from tests.support.rows import NOBODY, add_job, add_worker, ago

EVIL = "<script>boom()</script><img src=x onerror=boom()>{{boom()}}\"'><b hx-get=/evil hx-trigger=load hx-on:load=boom()>x</b>"


@pytest.fixture
async def full(rows: Connection) -> UUID:
    """Jobs in every state, with long and evil texts. Returns a dead one."""
    await rows.execute(
        "INSERT INTO queues (name, paused_at, paused_reason) VALUES ('evil', now(), $1) ON CONFLICT DO NOTHING", EVIL
    )
    await add_worker(rows, state="lost", lease=-10, types=[f"type.{n}" for n in range(12)])
    worker = await add_worker(rows, lease=3_600)
    for status in ("waiting", "scheduled", "failed", "cancelled", "completed", "processing", "pending"):
        taken = {"locked_by": worker} if status in ("processing", "completed") else {}
        await add_job(
            rows, status, queue="evil", run_at=ago(-9_000), tags=["a-rather-long-tag-0123456789"] * 3, **taken
        )
    id = await add_job(
        rows, "dead_letter", queue="evil", type="a." * 60, attempt=5, tags=[EVIL[:64]], error_type=EVIL, error_message=EVIL * 9,
        payload='{"text": "' + "word " * 3_000 + '", "<b>": "</pre><script>boom()</script>"}', unique_key="k" * 200,
    )  # fmt: skip
    await rows.execute(
        "INSERT INTO job_attempts (job_id, run_epoch, attempt, worker, started_at, finished_at, outcome, error_type, "
        "error_message, traceback) SELECT $1, n, n, $2, now(), now(), 'errored', $3, $3, $3 FROM generate_series(1, 5) AS n",
        *(id, NOBODY, EVIL),
    )
    return id


def pages(id: UUID) -> Iterator[str]:
    yield from (
        "/",
        "/dashboard",
        "/dashboard/jobs",
        "/dashboard/jobs?error=boom",
        f"/dashboard/jobs/{id}",
        "/dashboard/dlq",
    )
    yield from ("/dashboard/queues", "/dashboard/workers", "/dashboard/create", "/dashboard/create?type=sum")
    yield from ("/dashboard/jobs?type=nothing", "/dashboard/nothing")


async def test_no_name_however_long_widens_the_list(open_tab: OpenTab, full: UUID, rows: Connection) -> None:
    await add_job(
        rows, "failed", queue="q" * 64, type="t" * 128, error_type="E" * 99, error_message="m" * 99, tags=["x" * 64] * 9
    )
    async with open_tab(viewport={"width": 1280, "height": 900}) as tab:
        await tab.goto("/dashboard/jobs")
        wide = "document.querySelector('.scroll').scrollWidth - document.querySelector('.scroll').clientWidth"
        assert await tab.evaluate(wide) == 0
        outside = "[...document.querySelectorAll('.jobs td, .jobs th')].filter(c => c.scrollWidth > c.clientWidth + 1 && getComputedStyle(c).overflow === 'visible').map(c => c.outerHTML)"
        assert await tab.evaluate(outside) == []


async def test_axe_finds_nothing_in_the_help_sheet(open_tab: OpenTab) -> None:
    for theme in ("light", "dark"):
        async with open_tab(color_scheme=theme) as tab:
            await tab.goto("/dashboard")
            await tab.keyboard.press("?")
            await check_axe(tab, f"help, {theme}")


async def check_axe(tab: Page, where: str, *rules: str) -> None:
    """All rules by default."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    results = await Axe().run(tab, options=options)
    found = [f"{v['id']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in results.response["violations"]]
    assert found == [], where


@pytest.mark.parametrize(("theme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
async def test_axe_finds_nothing(open_tab: OpenTab, full: UUID, theme: str, rules: tuple[str, ...]) -> None:
    async with open_tab(expected=("404",), color_scheme=theme, viewport={"width": 1280, "height": 900}) as tab:
        for path in pages(full):
            await tab.goto(path)
            await tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
            await check_axe(tab, f"{theme} {path}", *rules)


async def test_nothing_stands_out_of_a_phone(open_tab: OpenTab, full: UUID, rows: Connection) -> None:
    async with open_tab(expected=("404",), viewport={"width": 390, "height": 844}, has_touch=True) as tab:
        await rows.execute(
            "INSERT INTO counter_deltas (queue, before, after, n) VALUES ('evil', '', 'completed', 123456789)"
        )
        for path in pages(full):
            await tab.goto(path)
            assert await tab.evaluate("document.documentElement.scrollWidth") <= 390, path
        await check_axe(tab, "phone")


async def test_a_page_weighs_little(open_tab: OpenTab, full: UUID, rows: Connection) -> None:
    """What is loaded for it; what its regions fetch later, to be up to date, is not counted."""
    for _ in range(60):
        await add_job(
            rows,
            "dead_letter",
            queue="heavy",
            tags=["eu", "vip"],
            error_type="RuntimeError",
            error_message="no answer " * 30,
        )
    async with open_tab() as tab:
        for path in ("/dashboard", "/dashboard/jobs?queue=heavy", f"/dashboard/jobs/{full}"):
            await tab.goto(path, wait_until="load")
            weight = await tab.evaluate(
                "performance.getEntriesByType('resource').filter(e => e.initiatorType !== 'fetch').reduce((sum, e) => sum + e.transferSize, 0)"
                " + performance.getEntriesByType('navigation')[0].transferSize"
            )
            assert weight < 100_000, (path, weight)
