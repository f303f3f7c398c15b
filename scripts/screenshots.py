"""Look at every page of the dashboard: with nothing, with everything and while servers are away, on a desk and on a phone,
in light and dark.

.venv/bin/python scripts/screenshots.py             the two pictures of the README, in docs/images
.venv/bin/python scripts/screenshots.py FOLDER [PART …]   all of them, in FOLDER; PART: only those whose name has it
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))  # for tests.support: servers, processes and rows

import asyncpg
from playwright.async_api import Browser, Page, async_playwright
from sample_jobs import fill

from jobflow.embedded import Servers, Urls
from jobflow.migrate import upgrade
from tests.support.process import Process, processes
from tests.support.servers import admin_url, home, programs, with_database

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SIZES = {"desk": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
THEMES = ("light", "dark")
TOKEN = "a-token-of-visible-characters"
BUG = "from jobflow.store import Store\nasync def get_job(self, id): raise ZeroDivisionError\nStore.get_job = get_job"

Act = Callable[[Page], Awaitable[object]]
Shot = tuple[str, str, Act | None]  # name, path, what to do there before the picture


class Gallery:
    """Takes pictures of one kind after another, each in every size and theme."""

    def __init__(self, browser: Browser, folder: Path, wanted: list[str]) -> None:
        self._browser, self._folder, self._wanted = browser, folder, wanted
        self._visitors = 0

    def wants(self, scene: str, *names: str) -> bool:
        return not self._wanted or any(part in f"{scene}-{name}" for part in self._wanted for name in names)

    async def take(self, scene: str, url: str, shots: list[Shot], *, script: bool = True) -> None:
        for size, viewport in SIZES.items():
            for theme in THEMES:
                self._visitors += 1  # each from an address of its own, for the limit of the login
                context = await self._browser.new_context(
                    base_url=url, viewport=viewport, color_scheme=theme, java_script_enabled=script,
                    extra_http_headers={"x-forwarded-for": f"10.0.0.{self._visitors}"},
                )  # fmt: skip
                for name, path, act in shots:
                    if self.wants(scene, name):
                        tab = await context.new_page()
                        await look(tab, path, act, self._folder / f"{scene}-{name}-{size}-{theme}.png", whole=True)
                        await tab.close()
                await context.close()


async def look(tab: Page, path: str, act: Act | None, file: Path, *, whole: bool) -> None:
    await tab.goto(path)
    if act is not None:
        await act(tab)
    await tab.wait_for_timeout(250)
    await tab.evaluate("scrollTo(0, 0)")
    await tab.screenshot(path=file, full_page=whole, animations="disabled")
    print(file)


# ---- what is done on a page -------------------------------------------------------------------------------------------


async def open_all(tab: Page) -> None:
    for summary in await tab.locator("main summary").all():
        await summary.click()


async def choose(tab: Page) -> None:
    for row in (0, 2, 3):
        await tab.locator('tbody input[name="id"]').nth(row).check()


async def ask(tab: Page) -> None:
    await choose(tab)
    await tab.locator("#do-discard, #do-delete").first.click()


async def help_sheet(tab: Page) -> None:
    await tab.keyboard.press("?")


async def press(tab: Page, name: str, times: int = 1, **typed: str) -> None:
    for _ in range(times):
        for field, text in typed.items():
            await tab.locator(f"#{field}").fill(text)
        await tab.get_by_role("main").get_by_role("button", name=name).first.click()
        await tab.wait_for_load_state()


def bad_form(tab: Page) -> Awaitable[object]:
    return tab.locator("main form [name=csrf]").first.evaluate("field => { field.value = ''; field.form.submit() }")


# ---- the scenes -------------------------------------------------------------------------------------------------------

PLACES: list[Shot] = [
    ("overview", "/dashboard", None),
    ("jobs", "/dashboard/jobs", None),
    ("dlq", "/dashboard/dlq", None),
    ("queues", "/dashboard/queues", None),
    ("workers", "/dashboard/workers", None),
    ("home", "/", None),
]


def full(ids: Mapping[str, str]) -> list[Shot]:
    dead = f"/dashboard/jobs/{ids['dead_letter']}"
    return [
        *PLACES,
        *((f"job-{name}", f"/dashboard/jobs/{id}", None) for name, id in ids.items()),
        ("job-open", dead, open_all),
        ("jobs-filtered", "/dashboard/jobs?status=failed&queue=reports", None),
        ("jobs-nothing", "/dashboard/jobs?type=nothing", None),
        ("jobs-searched", "/dashboard/jobs?error=no+such+text", None),
        ("jobs-middle", "/dashboard/jobs?limit=25", lambda tab: tab.get_by_role("link", name="Older").click()),
        ("jobs-chosen", "/dashboard/jobs", choose),
        ("jobs-ask", "/dashboard/jobs", ask),
        ("dlq-ask", "/dashboard/dlq", lambda tab: press(tab, "Retry all")),
        ("help", "/dashboard", help_sheet),
        ("create", "/dashboard/create", None),
        ("create-fields", "/dashboard/create?type=sum", open_all),
        ("create-faults", "/dashboard/create?type=sum", lambda tab: press(tab, "Submit")),
        ("create-unknown", "/dashboard/create?type=image.process", None),
        ("docs", "/docs", None),
        ("error-404", "/dashboard/nothing", None),
        ("error-404-job", "/dashboard/jobs/0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60", None),
        ("error-403", "/dashboard/create", bad_form),
        ("error-422", "/dashboard/jobs?limit=x&nonsense=1", None),
    ]


class Stage:
    """Servers of its own, and processes on databases of its own."""

    def __init__(self, servers: Servers, urls: Urls, folder: Path) -> None:
        self.servers, self._urls, self._folder = servers, urls, folder

    async def database(self, name: str) -> str:
        """The url of a new, migrated database."""
        admin = await asyncpg.connect(admin_url(self._urls.database_url), ssl=False)
        owner = urlsplit(self._urls.database_url).username
        await admin.execute(f"CREATE DATABASE {name} OWNER {owner}")
        await admin.close()
        url = with_database(self._urls.database_url, name)
        await upgrade(url)
        return url

    @asynccontextmanager
    async def process(self, database_url: str, before: str = "", **settings: str) -> AsyncIterator[Process]:
        with processes(self._folder, database_url, self._urls.redis_url) as started:
            process = started.start(before, JOBFLOW_LEASE="15", **settings)
            yield await process.ready()
            process.terminate()
            await process.ended()


async def visit_all(stage: Stage, gallery: Gallery) -> None:
    url = await stage.database("empty")
    async with stage.process(url, WORKER_CONCURRENCY="50") as process:
        await gallery.take("empty", process.url, PLACES)
    async with stage.process(
        url, BUG, WORKER_CONCURRENCY="0", JOBFLOW_ADMIN_TOKEN=TOKEN, JOBFLOW_TRUSTED_PROXIES="127.0.0.1"
    ) as process:
        await visit_locked(gallery, process.url)

    url = await stage.database("shop")
    async with stage.process(url, WORKER_CONCURRENCY="0") as process:
        ids = await fill(url)
        await gallery.take("full", process.url, full(ids))
        chosen: list[Shot] = [
            ("list", "/dashboard/jobs", None),
            ("ask", f"/dashboard/jobs/{ids['dead_letter']}", lambda tab: press(tab, "Delete")),
        ]
        await gallery.take("plain", process.url, chosen, script=False)
        await fill(url, workers=False)
        await gallery.take(
            "alone", process.url, [*PLACES[:1], *PLACES[3:5], ("job", f"/dashboard/jobs/{ids['pending']}", None)]
        )
        if gallery.wants("away", ""):
            assert stage.servers.valkey is not None
            assert stage.servers.postgres is not None
            stage.servers.valkey.stop()
            await asyncio.sleep(2)
            await gallery.take("slow", process.url, [PLACES[0], PLACES[5]])
            stage.servers.postgres.stop()
            await asyncio.sleep(2)
            await gallery.take("away", process.url, [PLACES[0], PLACES[1], PLACES[5]])


async def visit_locked(gallery: Gallery, url: str) -> None:
    async def log_in(tab: Page) -> None:
        await press(tab, "Log in", token=TOKEN)

    async def limited(tab: Page) -> None:
        await tab.context.clear_cookies()
        await tab.goto("/login")
        await press(tab, "Log in", times=10, token="not it")

    shots: list[Shot] = [
        ("login", "/login?next=/dashboard/workers", None),
        ("login-wrong", "/login", lambda tab: press(tab, "Log in", token="not it")),
        ("error-500", "/login?next=/dashboard/jobs/019ab3c2-5d5e-7c1a-9f0e-6b1d2c3e4f50", log_in),
        ("overview", "/dashboard/queues", None),
        ("login-limited", "/login", limited),
    ]
    await gallery.take("locked", url, shots)


async def main(folder: Path | None, wanted: list[str]) -> None:
    chromium = os.environ.get("JOBFLOW_TEST_CHROMIUM") or shutil.which("chromium")
    data = Path(tempfile.mkdtemp(dir=home()))
    servers = Servers(data, durable=False, **programs())
    try:
        stage = Stage(servers, servers.start(), data)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            if folder is None:
                await take_for_readme(stage, browser)
            else:
                await visit_all(stage, Gallery(browser, folder, wanted))
            await browser.close()
    finally:
        servers.stop()
        shutil.rmtree(data, ignore_errors=True)


async def take_for_readme(stage: Stage, browser: Browser) -> None:
    url = await stage.database("shop")
    async with stage.process(url, WORKER_CONCURRENCY="0") as process:
        await fill(url, extremes=False)
        for name, path, theme in (("overview", "/dashboard", "light"), ("jobs", "/dashboard/jobs", "dark")):
            tab = await browser.new_page(
                base_url=process.url, viewport={"width": 1280, "height": 800}, color_scheme=theme
            )
            await look(tab, path, None, IMAGES / f"{name}.png", whole=False)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:]))
