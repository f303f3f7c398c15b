"""One Jobflow process as an operator runs it, and the servers behind it, to be killed, stopped, continued and ended."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.processes import end_with_us
from jobflow.embedded import Servers
from jobflow.settings import variables
from tests.support.commands import free_port
from tests.support.servers import home, programs

ROOT = Path(__file__).parent.parent.parent
LEASE = 1.5  # seconds: what a fault test waits for more than once
PATIENCE = 60.0  # seconds

SERVE = "from jobflow.cli import main; main(['serve'])"

numbers = itertools.count(1)

# What a process may be told to do ``before`` it starts.


def dying(place: str, *, after: bool = False) -> str:
    """It kills itself when it calls ``module:Class.method``, or once that has returned something."""
    module, _, name = place.partition(":")
    return f"""
import importlib, os, signal
owner = importlib.import_module({module!r}).{name.rpartition(".")[0]}
real = owner.{name.rpartition(".")[2]}
async def die(*args, **options):
    answer = {"await real(*args, **options)" if after else "True"}
    if answer:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
owner.{name.rpartition(".")[2]} = die
"""


def idle_until(file: Path) -> str:
    """It takes no job before that file exists."""
    return f"""
import os, jobflow.engine.fetcher as f
tick = f.Fetcher.tick
async def wait(self):
    return await tick(self) if os.path.exists({str(file)!r}) else 0.02
f.Fetcher.tick = wait
"""


class Process:
    """``jobflow serve`` on a port of its own.

    folder: for its output. before: Python that runs first, to shorten what a test cannot wait for. root: the checkout.
    """

    def __init__(
        self, folder: Path, database_url: str, redis_url: str, before: str = "", root: Path = ROOT, **settings: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / f"process-{next(numbers)}.log"
        known = {name for name, *_ in variables()}
        environ = {name: value for name, value in os.environ.items() if name not in known} | {
            "PYTHONPATH": str(root),
            "PORT": str(self.port),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JOBFLOW_HANDLERS": "tests.support.handlers",
            "WORKER_CONCURRENCY": "10",
            "RATE_LIMIT_MAX": "1000000",
            "JOBFLOW_LEASE": str(LEASE),
            "JOBFLOW_GRACE": "5",
            "JOBFLOW_LOG_FORMAT": "json",
            **settings,
        }
        command = ["-c", f"{before}\n{SERVE}"] if before else ["-m", "jobflow", "serve"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environ,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_us,
            )

    # ---- what it says -----------------------------------------------------------------------------------------------

    def said(self) -> str:
        return self.output.read_text("utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines about one kind of event."""
        found = []
        for line in self.said().splitlines():
            with suppress(msgspec.DecodeError):
                if (entry := msgspec.json.decode(line)).get("event") == name:
                    found.append(entry)
        return found

    async def ready(self, *, seconds: float = PATIENCE) -> Process:
        """Wait until /readyz says 200."""
        deadline = time.monotonic() + seconds
        async with httpx.AsyncClient(timeout=3) as http:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.said()
                with suppress(httpx.TransportError):
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return self
                await asyncio.sleep(0.03)
        raise AssertionError(f"not ready after {seconds:g} s: {self.said()}")

    # ---- what is done to it -----------------------------------------------------------------------------------------

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: it stands still and does not know."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, *, seconds: float = PATIENCE) -> int:
        """The exit status, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while (status := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still there after {seconds:g} s: {self.said()}"
            await asyncio.sleep(0.02)
        return status


class Processes:
    """All processes of one test, on the same servers."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self._folder, self.database_url, self.redis_url = folder, database_url, redis_url
        self._all: list[Process] = []

    def start(self, before: str = "", root: Path = ROOT, **settings: str) -> Process:
        urls = {"database_url": self.database_url, "redis_url": self.redis_url}
        process = Process(self._folder, before=before, root=root, **urls, **settings)
        self._all.append(process)
        return process

    def end(self) -> None:
        for process in self._all:
            print(process.output, process.said()[-20_000:], sep="\n")  # noqa: T201  (shown when the test fails)
            if process.process.poll() is None:
                process.kill()


@contextmanager
def processes(folder: Path, database_url: str, redis_url: str) -> Iterator[Processes]:
    """Whatever the test starts is gone after it."""
    started = Processes(folder, database_url, redis_url)
    try:
        yield started
    finally:
        started.end()


@contextmanager
def own_servers(*, database_url: str = "", redis_url: str = "") -> Iterator[Servers]:
    """Servers that a test may hurt: those whose url is not given. ``postgres`` and ``valkey`` know their processes."""
    data = Path(tempfile.mkdtemp(dir=home()))
    servers = Servers(data, database_url=database_url, redis_url=redis_url, durable=False, **programs())
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(data, ignore_errors=True)
