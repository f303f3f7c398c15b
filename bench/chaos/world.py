"""The servers and processes of one run, how they are started again, and what they do that nobody planned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx

from bench.chaos.proxy import Proxy
from bench.machine import CHECKOUT, free_port
from bench.processes import end_with_us, family, signal_all
from jobflow.embedded import Servers
from jobflow.embedded.postgres import Postgres
from jobflow.embedded.valkey import Valkey
from jobflow.migrate import upgrade
from jobflow.settings import variables

CONCURRENCY = 200  # big batches: a small machine has more left for the faults
ORACLE = (Path(__file__).parent / "oracle.sql").read_text("utf-8")
HEALTH = 0.4  # of a lease: a process judges others after its own beats were answered for so long
PLANNED = {0, 9, -9}  # drained, or ended by a signal or a handler of ours
PATIENCE = 60.0  # seconds for a connection of our own
LOOK = 0.02  # seconds between two looks at a process


class Death(NamedTuple):
    """A process that ended without a word. ``at``: seconds since 1970, as Postgres on this machine counts them."""

    pid: int
    at: float


class App:
    """One place for a process: ``jobflow serve``, started again whenever it ends."""

    def __init__(self, number: int, world: World) -> None:
        self.number, self._world = number, world
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.postgres = Proxy(lambda: world.postgres.port, postgres=True)
        self.redis = Proxy(lambda: world.valkey.port, postgres=False)
        self.rest = 0.3  # seconds until it is started again
        self.ready = asyncio.Event()
        self.undisturbed: float | None = None  # since when (seconds since 1970); None: not up, or it stands still
        self.process: subprocess.Popen[bytes] | None = None
        self._told_to_end = False
        self._environ: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        known = {name for name, *_ in variables()}
        self._environ = {name: value for name, value in os.environ.items() if name not in known} | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH")))),
            "PORT": str(self.port),
            "DATABASE_URL": with_port(self._world.postgres.url, await self.postgres.start()),
            "REDIS_URL": with_port(self._world.valkey.url, await self.redis.start()),
            "RATE_LIMIT_MAX": "10000000",
            "WORKER_CONCURRENCY": str(CONCURRENCY),
            "JOBFLOW_POOL_SIZE": "14",
            "JOBFLOW_LANE_SIZE": "1000",
            "JOBFLOW_LEASE": str(self._world.lease),
            "JOBFLOW_GRACE": "5",
            "JOBFLOW_HANDLERS": "bench.chaos.handlers",
            "JOBFLOW_LOG_FORMAT": "json",
            "CHAOS_EFFECTS": str(self._world.effects),
        }
        self._task = asyncio.create_task(self._keep(), name=f"app-{self.number}")

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self._told_to_end |= number == signal.SIGTERM
            self.process.send_signal(number)

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        for _ in range(1000):
            if self.process is None or self.process.poll() is not None:
                break
            await asyncio.sleep(LOOK)
        self.send(signal.SIGKILL)
        await self.postgres.close()
        await self.redis.close()

    async def _keep(self) -> None:
        while True:
            log = self._world.folder / f"app-{self.number}.log"
            with log.open("ab") as file:
                self.process = subprocess.Popen(  # noqa: ASYNC220  (it takes a millisecond)
                    [sys.executable, "-m", "jobflow", "serve"],
                    env=self._environ, cwd=self._world.folder, stdout=file, stderr=file, preexec_fn=end_with_us,
                )  # fmt: skip
            self._told_to_end = False
            watcher = asyncio.create_task(self._until_ready())
            try:
                while (status := self.process.poll()) is None:
                    await asyncio.sleep(LOOK)
            finally:
                watcher.cancel()
            if status != 0 and self.ready.is_set():
                self._world.deaths.append(Death(self.process.pid, time.time()))
            if self.ready.is_set() and (status not in PLANNED or (status == 0 and not self._told_to_end)):
                self._world.surprise(
                    f"process {self.number} (pid {self.process.pid}) ended by itself with {status}: {log}"
                )
            elif status not in PLANNED:
                self._world.refused_starts += 1  # a server was away
            self.ready.clear()
            self.undisturbed = None
            await asyncio.sleep(self.rest)
            self.rest = 0.3

    async def _until_ready(self) -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=2) as http:
            while True:
                with suppress(httpx.TransportError):
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        self.ready.set()
                        self.undisturbed = time.time()
                        self._world.starts.append(time.monotonic() - began)
                        return
                await asyncio.sleep(0.05)


class World:
    """Everything that one run hurts. ``folder`` keeps logs and data until somebody removes it."""

    def __init__(self, folder: Path, *, apps: int, lease: float) -> None:
        self.folder, self.lease = folder, lease
        self.effects = folder / "effects"
        self.effects.mkdir()
        self.servers = Servers(folder / "data")
        self.apps = [App(number, self) for number in range(apps)]
        self.deaths: list[Death] = []
        self.outages: list[tuple[float, float]] = []  # of Postgres, seconds since 1970
        self.unjudged: list[
            tuple[float, float]
        ] = []  # spans in which no process was up and undisturbed for long enough
        self.starts: list[float] = []  # how long each took, seconds
        self.surprises: list[str] = []
        self.refused_starts = 0

    @property
    def postgres(self) -> Postgres:
        assert self.servers.postgres is not None
        return self.servers.postgres

    @property
    def valkey(self) -> Valkey:
        assert self.servers.valkey is not None
        return self.servers.valkey

    def surprise(self, sentence: str) -> None:
        """Something that must not happen, but is neither a lost job nor one accepted twice."""
        self.surprises.append(sentence)
        if len(self.surprises) > 200:
            raise RuntimeError(f"nothing works: {sentence}")

    def uncounted(self) -> list[tuple[float, float]]:
        """When nobody could judge others: without Postgres and a while after it, and without a process that is well."""
        return sorted([(began, ended + HEALTH * self.lease) for began, ended in self.outages] + self.unjudged)

    async def observe(self) -> None:
        """Note the spans in which no process could judge others."""
        last = time.time()
        while True:
            await asyncio.sleep(0.1)
            now = time.time()
            long = HEALTH * self.lease
            if not any(app.undisturbed is not None and now - app.undisturbed > long for app in self.apps):
                began = self.unjudged.pop()[0] if self.unjudged and self.unjudged[-1][1] == last else last
                self.unjudged.append((began, now))
            last = now

    async def start(self) -> None:
        await asyncio.to_thread(self.servers.start)
        await upgrade(self.postgres.url)
        connection = await asyncpg.connect(
            self.postgres.url, ssl=False
        )  # as Jobflow's role, whose moves it writes down
        await connection.execute(ORACLE)
        await connection.close()
        for app in self.apps:
            await app.start()
        await asyncio.wait_for(asyncio.gather(*(app.ready.wait() for app in self.apps)), 300)

    async def end(self) -> None:
        await asyncio.gather(*(app.end() for app in self.apps))
        for server in (self.servers.postgres, self.servers.valkey):
            if server is not None and server.process is not None:
                signal_all(family(server.process.pid), signal.SIGCONT)
        await asyncio.to_thread(self.servers.stop)

    async def connect(self) -> asyncpg.Connection[Any]:
        """A connection of our own, not by way of a proxy, as a superuser. It waits for a Postgres that starts."""
        url = self.postgres.url.replace("//jobflow:", "//postgres:", 1)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await asyncpg.connect(url, ssl=False, timeout=20, server_settings={"application_name": "chaos"})
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)


def with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
