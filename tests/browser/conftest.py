"""A real Chromium against a real ``jobflow serve``; whatever the console complains about fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from jobflow.embedded import Urls
from jobflow.pool import Connection
from tests.support.process import Process, processes
from tests.support.servers import fresh_database, with_database

CHROMIUM = os.environ.get(
    "PLAYWRIGHT_CHROMIUM_EXECUTABLE_PATH", ""
)  # a program, set by `./dev test` if it unpacked one
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PATIENCE = 30_000  # milliseconds for what must happen at all; what must be quick is measured
expect.set_options(timeout=PATIENCE)

# Counts what a Content-Security-Policy stops, and what markup of others would call.
WATCH = """
window.violations = [];
window.boom = () => window.violations.push("boom() was called");
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""

OpenTab = Callable[..., AbstractAsyncContextManager[Page]]


@pytest.fixture(scope="session")
async def chromium() -> str:
    """The path of a browser. Fails, never skips: a test run without a browser has not tested the dashboard."""
    for name in (CHROMIUM, "/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    async with async_playwright() as playwright:
        if found := shutil.which(playwright.chromium.executable_path):  # what `playwright install chromium` installed
            return found
    pytest.fail(
        "There is no Chromium: `./dev test` installs one; else set PLAYWRIGHT_CHROMIUM_EXECUTABLE_PATH to the path of yours."
    )


@pytest.fixture(scope="package")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
def site_database(servers: Urls, template: str) -> Iterator[str]:
    with fresh_database(servers.database_url, template) as url:
        yield url


@pytest.fixture(scope="package")
async def site(servers: Urls, site_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    """One process for all browser tests; each works with types and tags of its own. Gone before others hear of it."""
    folder = tmp_path_factory.mktemp("browser")
    with processes(folder, site_database, with_database(servers.redis_url, "0")) as started:
        process = started.start(JOBFLOW_LOG_LEVEL="warning")
        yield await process.ready()
        process.terminate()
        await process.ended()


@pytest.fixture
async def api(site: Process) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url) as client:
        yield client


@pytest.fixture
async def rows(site: Process, site_database: str) -> AsyncIterator[Connection]:
    """A connection to the site's database."""
    connection = await asyncpg.connect(site_database, ssl=False)
    yield connection
    await connection.close()


@pytest.fixture
def open_tab(browser: Browser, site: Process) -> OpenTab:
    """``async with open_tab(...) as tab``: a fresh profile; options are those of Playwright's new_context.

    expected: texts that a console message may contain.
    """

    @asynccontextmanager
    async def opened(*, url: str = "", expected: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Page]:
        context: BrowserContext = await browser.new_context(base_url=url or site.url, **options)
        context.set_default_timeout(PATIENCE)
        faults: list[str] = []
        tab = await context.new_page()
        tab.on(
            "console",
            lambda message: (
                faults.append(f"{message.type}: {message.text}") if message.type in ("error", "warning") else None
            ),
        )
        tab.on("pageerror", lambda error: faults.append(f"exception: {error}"))
        scripted = options.get("java_script_enabled", True)
        if scripted:
            await context.add_init_script(WATCH)
        try:
            yield tab
            if scripted:
                faults += await tab.evaluate("window.violations")
            assert [fault for fault in faults if not any(text in fault for text in expected)] == []
        finally:
            await context.close()

    return opened


@pytest.fixture
async def tab(open_tab: OpenTab) -> AsyncIterator[Page]:
    """An ordinary tab."""
    async with open_tab(viewport={"width": 1280, "height": 900}) as page:
        yield page
