"""Private servers, databases that begin empty, the application as a process of its own, and how steady the machine is."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import redis
import uuid_utils

from bench.processes import cpu_of
from jobflow.embedded import Servers
from jobflow.lifecycle import NewJob
from jobflow.migrate import upgrade
from jobflow.pool import Pool
from jobflow.store import Store

CHECKOUT = Path(__file__).resolve().parent.parent


class Machine:
    """Two servers; ``fresh()`` gives an empty migrated database and an empty Redis on them."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.redis_url = redis_url
        self._count = 0
        self._last = ""

    def fresh(self, *, beside: bool = False, migrated: bool = True) -> str:
        """The url of a new database, like the one a first start makes; the last one goes, but for ``beside``."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
        self._count += 1
        parts = urlsplit(self.database_url)
        admin = parts._replace(netloc=f"postgres:{parts.password}@{parts.hostname}:{parts.port}", path="/postgres")
        name = f"bench_{self._count}"
        drop = [f"DROP DATABASE {self._last} WITH (FORCE)"] if self._last and not beside else []
        asyncio.run(execute(admin.geturl(), *drop, f"CREATE DATABASE {name} OWNER {parts.username}", "CHECKPOINT"))
        self._last = name
        url = parts._replace(path=f"/{name}").geturl()
        if migrated:
            asyncio.run(upgrade(url))
        return url

    @contextmanager
    def app(self, database_url: str, *, tree: Path = CHECKOUT, **settings: Any) -> Iterator[App]:
        """``jobflow serve`` of a checkout on a free port, from its start until it has ended."""
        app = App(self.folder / "app.log", database_url, self.redis_url, settings, tree)
        try:
            yield app
        finally:
            app.stop()

    def versions(self) -> str:
        postgres = asyncio.run(fetch(self.database_url, "SHOW server_version"))
        with redis.Redis.from_url(self.redis_url) as client:
            info: Any = client.info("server")
        server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        names = ("litestar", "uvicorn", "uvloop", "asyncpg", "msgspec", "redis", "sqlalchemy")
        packages = ", ".join(f"{name} {version(name)}" for name in names)
        return f"Python {platform.python_version()}, PostgreSQL {postgres}, {server}; {packages}"


@contextmanager
def machine(data: str | None) -> Iterator[Machine]:
    """Servers of this run alone, with their durable settings, on a disk; gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="jobflow-bench-", dir=data))
    servers = Servers(folder / "data")
    try:
        urls = servers.start(lambda sentence: print(sentence, file=sys.stderr))
        yield Machine(folder, urls.database_url, urls.redis_url)
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


class App:
    """One application process."""

    def __init__(
        self, log: Path, database_url: str, redis_url: str, settings: dict[str, Any], tree: Path = CHECKOUT
    ) -> None:
        self.port = free_port()
        self.log = log
        env = {name: value for name, value in os.environ.items() if not name.startswith("JOBFLOW_")}
        env |= {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "PORT": str(self.port),
            "RATE_LIMIT_MAX": "10000000",
            "JOBFLOW_HANDLERS": "bench.handlers",
            "JOBFLOW_LOG_FORMAT": "json",
            **{name: str(value) for name, value in settings.items()},
        }
        with log.open("wb") as file:  # its working folder has no .env
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tree), env.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobflow", "serve"], env=env, cwd=log.parent, stdout=file, stderr=file
            )

    def wait_until_ready(self) -> None:
        url = f"http://127.0.0.1:{self.port}/readyz"
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"The application did not start:\n{self.log.read_text()[-4000:]}")

    def check(self) -> None:
        if self._process.poll() is not None:
            raise SystemExit(f"The application ended:\n{self.log.read_text()[-4000:]}")

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_of(self._process.pid)

    def peak_memory(self) -> float:
        """MB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def child(module: str, *args: str, **env: str) -> dict[str, Any]:
    """Run a module of this package in a process of its own; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *args],
        env=os.environ | env,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} failed with {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url, ssl=False)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def new_jobs(count: int) -> Iterator[NewJob]:
    for n in range(count):
        yield NewJob(
            id=UUID(int=uuid_utils.uuid7().int),
            type="noop",
            queue="default",
            priority=5,
            payload=b'{"number":%d,"to":"user@example.com","subject":"Hello"}' % n,
            max_attempts=5,
            timeout=60.0,
        )


def preload(url: str, count: int) -> list[UUID]:
    """Commit ``count`` jobs that are ready, by the statement the API uses. Redis knows nothing of them."""

    async def go() -> None:
        pool = Pool(url, shares={"bench": 1})
        store = Store(pool, "bench")
        await store.add_queues(["default"])
        for first in range(0, count, 5_000):
            await store.insert_jobs(jobs[first : first + 5_000])
        await pool.close()

    jobs = list(new_jobs(count))
    asyncio.run(go())
    return [job.id for job in jobs]


def steadiness() -> tuple[float, float]:
    """How fast a fixed piece of Python runs (ms) and how long a write to the disk takes (ms): both should not vary."""
    began = time.perf_counter()
    sum(n * n % 7 for n in range(400_000))
    spin = time.perf_counter() - began
    with tempfile.TemporaryFile() as file:
        began = time.perf_counter()
        for _ in range(20):
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
        sync = (time.perf_counter() - began) / 20
    return spin * 1e3, sync * 1e3


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], statistics.median(ordered), ordered[-1]


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
