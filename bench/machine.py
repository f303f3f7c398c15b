"""Private servers, databases that begin empty, and the application as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import redis
import uuid_utils

from bench.processes import end_with_us, memory_of
from jobflow.embedded import Servers
from jobflow.embedded.valkey import Valkey
from jobflow.lifecycle import NewJob
from jobflow.migrate import upgrade
from jobflow.pool import Pool
from jobflow.store import Store

CHECKOUT = Path(__file__).resolve().parent.parent
# Whoever looks on takes the planner as Postgres ships it, and has time; Jobflow's role has neither.
ONLOOKER = dict.fromkeys(("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan"), "on") | {
    "statement_timeout": "0",
    "lock_timeout": "0",
}


class Machine:
    """Two servers, and databases on them that come and go."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        assert servers.postgres is not None
        assert servers.valkey is not None
        self.folder = folder
        self.postgres, self.valkey = servers.postgres, servers.valkey
        self.database_url, self.redis_url = self.postgres.url, self.valkey.url
        self._second: Servers | None = None
        self._count = 0

    @property
    def postgres_pid(self) -> int:
        assert self.postgres.process is not None
        return self.postgres.process.pid

    @property
    def redis_pid(self) -> int:
        assert self.valkey.process is not None
        return self.valkey.process.pid

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """The url of a new database, like the one a first start makes; it goes with the block."""
        self._count += 1
        parts = urlsplit(self.database_url)
        name = f"bench_{self._count}"
        self._administer(f"CREATE DATABASE {name} OWNER {parts.username}")
        self.checkpoint()
        url = parts._replace(path=f"/{name}").geturl()
        try:
            if migrated:
                asyncio.run(upgrade(url))
            yield url
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def checkpoint(self) -> None:
        """Write what was changed so far: else it would be written during what is measured next."""
        self._administer("CHECKPOINT")

    def _administer(self, statement: str) -> None:
        parts = urlsplit(self.database_url)
        admin = parts._replace(netloc=f"postgres:{parts.password}@{parts.hostname}:{parts.port}", path="/postgres")
        asyncio.run(execute(admin.geturl(), statement))

    @contextmanager
    def app(self, database_url: str, *, tree: Path = CHECKOUT, **settings: Any) -> Iterator[App]:
        """``jobflow serve`` of a checkout on a free port, from its start until it has ended."""
        app = App(self.folder / "app.log", database_url, self.redis_url, settings, tree)
        try:
            yield app
        finally:
            app.stop()

    def second_valkey(self) -> Valkey:
        """Another one, for an instance beside another: what they publish would reach each other."""
        if self._second is None:
            self._second = Servers(self.folder / "second", database_url=self.database_url)
            self._second.start()
        assert self._second.valkey is not None
        return self._second.valkey

    def close(self) -> None:
        if self._second is not None:
            self._second.stop()

    def versions(self) -> dict[str, str]:
        """What runs, by name."""
        with redis.Redis.from_url(self.redis_url) as client:
            info: Any = client.info("server")
        redis_name = "Valkey" if "valkey_version" in info else "Redis"
        names = ("litestar", "uvicorn", "uvloop", "asyncpg", "msgspec", "redis", "sqlalchemy")
        return {
            "Python": platform.python_version(),
            "PostgreSQL": asyncio.run(fetch(self.database_url, "SHOW server_version")),
            redis_name: info.get("valkey_version") or info["redis_version"],
            **{name: version(name) for name in names},
        }

    def describe(self) -> str:
        """A line for people."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions().items())
        return f"{os.cpu_count()} cores; {versions}"


@contextmanager
def machine(data: str | None) -> Iterator[Machine]:
    """Servers of this run alone, with their durable settings, on a disk; gone when it ends.

    data: folder for their data; None: the temporary folder.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started is ended then, too
    folder = Path(tempfile.mkdtemp(prefix="jobflow-bench-", dir=data))
    servers = Servers(folder / "data")
    try:
        servers.start(lambda sentence: print(sentence, file=sys.stderr))
        made = Machine(folder, servers)
        try:
            yield made
        finally:
            made.close()
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
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tree), env.get("PYTHONPATH"))))
        self._env = env
        self.start()

    def start(self) -> None:
        """Start it, also again after its end, on the same port."""
        with self.log.open("wb") as file:  # its working folder has no .env
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobflow", "serve"],
                env=self._env,
                cwd=self.log.parent,
                stdout=file,
                stderr=file,
                preexec_fn=end_with_us,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

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

    def peak_memory(self) -> float:
        """MB."""
        return memory_of(self.pid, peak=True)

    def kill(self) -> None:
        """As by kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Companion:
    """A process that answers with a line of JSON, its last, and ends. ``hear`` a line before that.

    command: a program and its arguments; ``module`` has it for one of this package.
    """

    def __init__(self, *command: object, **env: str) -> None:
        self._command = [str(word) for word in command]
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | env,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Its next line; empty: there is none any more."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> dict[str, Any]:
        """End its standard input and wait for its answer. Raises SystemExit: it failed."""
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"{' '.join(self._command)} failed with {self._process.returncode}")
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer


def module(name: str) -> tuple[str, str, str]:
    return sys.executable, "-m", name


def child(name: str, *args: object, **env: str) -> dict[str, Any]:
    """The answer of a module of this package, in a process of its own. Raises SystemExit: it failed."""
    return Companion(*module(name), *args, **env).end()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, ssl=False, server_settings=ONLOOKER)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url, ssl=False, server_settings=ONLOOKER)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def new_jobs(count: int, type: str = "noop", padding: int = 0) -> Iterator[NewJob]:
    """``padding``: bytes that each payload has more, and that do not compress."""
    padded = b',"padding":"%b"' % secrets.token_urlsafe(padding)[:padding].encode() if padding else b""
    for n in range(count):
        yield NewJob(
            id=UUID(int=uuid_utils.uuid7().int),
            type=type,
            queue="default",
            priority=5,
            payload=b'{"number":%d,"to":"user@example.com","subject":"Hello"%b}' % (n, padded),
            max_attempts=5,
            timeout=60.0,
        )


def preload(url: str, count: int, type: str = "noop", padding: int = 0) -> list[UUID]:
    """Commit ``count`` jobs that are ready, by the statement the API uses. Redis knows nothing of them."""
    page = 5_000 if padding < 1_000 else 500

    async def go() -> None:
        pool = Pool(url, shares={"bench": 1})
        store = Store(pool, "bench")
        await store.add_queues(["default"])
        for first in range(0, count, page):
            await store.insert_jobs(jobs[first : first + page])
        await pool.close()

    jobs = list(new_jobs(count, type, padding))
    asyncio.run(go())
    return [job.id for job in jobs]
