"""Make the screenshots of the README: starts Jobflow on servers of its own, gives it work, and looks at two pages.

.venv/bin/python scripts/screenshots.py [FOLDER]     default: docs/images; takes four minutes
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent
PORT = 8377
URL = f"http://localhost:{PORT}"
SIZE = {"width": 1280, "height": 800}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PEOPLE = ("ada", "grace", "edsger", "barbara", "donald", "radia", "tony", "frances")
REPORTS = ("Q1 revenue", "Churn by plan", "Inventory", "Payroll March", "Uptime")
WAVES, BETWEEN = 4, 50  # of jobs, over some minutes, so that the charts have a shape; seconds


def give_work(http: httpx.Client, count: int) -> None:
    for n in range(count):
        job: dict[str, object] = {
            "type": "email.send",
            "payload": {"to": f"{random.choice(PEOPLE)}@example.com", "subject": f"Invoice {1000 + n}"},
            "queue": "mail",
            "tags": ["invoice"],
        }
        if n % 4 == 1:
            job = {"type": "report.generate", "payload": {"name": random.choice(REPORTS)}, "queue": "reports"}
        elif n % 17 == 2:
            job = {"type": "image.process", "payload": {"path": f"/img/{n}.png"}, "max_attempts": 1, "queue": "media"}
        elif n % 11 == 3:
            job |= {"delay": 60 * n, "tags": ["reminder"]}
        http.post("/jobs", json=job).raise_for_status()


def wait_until_ready(http: httpx.Client) -> None:
    for _ in range(300):
        try:
            if http.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("Jobflow did not become ready.")


def take(browser: Browser, theme: str, path: str, file: Path) -> None:
    tab = browser.new_page(viewport=SIZE, color_scheme=theme)
    tab.goto(URL + path)
    tab.wait_for_timeout(1_200)
    tab.screenshot(path=file)
    print(f"{file}: {file.stat().st_size:,} bytes")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(7)
    chromium = os.environ.get("JOBFLOW_TEST_CHROMIUM") or shutil.which("chromium")
    data = tempfile.mkdtemp()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBFLOW_")}
    environ |= {"PORT": str(PORT), "JOBFLOW_DATA": data, "RATE_LIMIT_MAX": "100000", "WORKER_CONCURRENCY": "20"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobflow", "dev"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=URL) as http, sync_playwright() as playwright:
            wait_until_ready(http)
            for _ in range(WAVES):
                give_work(http, random.randint(120, 260))
                time.sleep(BETWEEN)
            give_work(http, 150)
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            take(browser, "light", "/dashboard", folder / "overview.png")
            time.sleep(8)
            take(browser, "dark", "/dashboard/jobs", folder / "jobs.png")
            browser.close()
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
