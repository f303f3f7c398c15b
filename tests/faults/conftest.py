"""Real processes, real signals, real servers; at the end the oracle judges."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from jobflow.embedded import Servers
from jobflow.migrate import upgrade
from jobflow.pool import Connection
from tests.support import oracle
from tests.support.process import Process, Processes, own_servers, processes
from tests.support.servers import fresh_database
from tests.support.waiting import until

figures: list[str] = []


def note(text: str) -> None:
    """Tell what was measured, at the end of the test run."""
    figures.append(f"{os.environ['PYTEST_CURRENT_TEST'].rpartition(' ')[0].rpartition('::')[2]}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))


class Load:
    """Submits jobs and remembers which were acknowledged."""

    def __init__(self, http: httpx.AsyncClient, database: Connection, record: Path) -> None:
        self._http, self.database, self._record = http, database, record
        self.acknowledged: list[UUID] = []
        self.refused = 0

    def job(self, type: str = "record", **payload: object) -> dict[str, object]:
        return {"type": type, "payload": {"path": str(self._record), **payload}}

    async def bulk(self, process: Process, jobs: list[dict[str, object]]) -> list[UUID]:
        answer = await self._http.post(f"{process.url}/jobs/bulk", json={"jobs": jobs})
        assert answer.status_code == 201, answer.text
        ids = [UUID(job["id"]) for job in answer.json()["jobs"]]
        self.acknowledged += ids
        return ids

    async def mixed(self, process: Process, count: int, seconds: float = 0.02) -> None:
        """``record`` and ``noop`` in turn, a hundred in each request."""
        jobs = [self.job("record", seconds=seconds) if n % 2 else self.job("noop") for n in range(count)]
        for start in range(0, count, 100):
            await self.bulk(process, jobs[start : start + 100])

    async def through(self, processes: Callable[[], Sequence[Process]], count: int, seconds: float = 0.02) -> None:
        """As ``mixed``, by whichever of the processes answers. What is sent again has the same key, so it is there once."""
        for start in range(0, count, 100):
            jobs = [self.job("record", seconds=seconds) if n % 2 else self.job("noop") for n in range(100)]
            key = str(uuid4())
            while (ids := await self._try(random.choice(processes()), jobs, key)) is None:
                await asyncio.sleep(0.02)
            self.acknowledged += ids[: count - start]

    async def _try(self, process: Process, jobs: list[dict[str, object]], key: str) -> list[UUID] | None:
        try:
            answer = await self._http.post(
                f"{process.url}/jobs/bulk", json={"jobs": jobs}, headers={"Idempotency-Key": key}
            )
        except httpx.TransportError:
            return None
        assert answer.status_code in (201, 409, 503), answer.text
        return [UUID(job["id"]) for job in answer.json()["jobs"]] if answer.status_code == 201 else None

    async def one(self, process: Process, job: dict[str, object]) -> int:
        """One POST, whatever comes of it; 0 when the connection broke."""
        try:
            answer = await self._http.post(f"{process.url}/jobs", json=job)
        except httpx.TransportError:
            return 0
        if answer.status_code == 201:
            self.acknowledged.append(UUID(answer.json()["id"]))
        else:
            self.refused += 1
        return answer.status_code

    async def drain(self, process: Process, count: int) -> float:
        """Jobs per second, of jobs that fall due together."""
        ids = await self.bulk(process, [{**self.job("noop"), "delay": 2} for _ in range(count)])
        query = "SELECT count(*) AS n, extract(epoch FROM max(finished_at) - min(started_at)) AS s FROM jobs_done WHERE id = ANY ($1)"

        async def done() -> asyncpg.Record:
            return (await self.database.fetch(query, ids))[0]

        row = await until(done, lambda row: row["n"] == count, seconds=60)
        return float(count / row["s"])

    async def left(self) -> dict[str, str]:
        return await oracle.unfinished(self.database, self.acknowledged)

    async def done(self) -> int:
        return len(self.acknowledged) - len(await self.left())

    async def finished(self, *, seconds: float = 60.0) -> None:
        """Wait until every acknowledged job has ended for good, then ask the oracle."""
        await until(self.left, lambda left: not left, seconds=seconds)
        await oracle.check(self.database, self.acknowledged)

    async def running(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until so many handlers have begun."""

        async def begun() -> int:
            return len(self.lines("begin"))

        await until(begun, lambda n: n >= count, seconds=seconds)

    def lines(self, word: str) -> list[str]:
        if not self._record.exists():
            return []
        return [line for line in self._record.read_text().splitlines() if line.startswith(word)]


@pytest.fixture
def run(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Processes]:
    """Processes on the servers of this test run, which nobody hurts."""
    with processes(tmp_path, database_url, redis_url) as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as http:
        yield http


@pytest.fixture
def load_later(client: httpx.AsyncClient, database: Connection, tmp_path: Path) -> Load:
    """Without the oracle, where there are no tables yet."""
    return Load(client, database, tmp_path / "record")


@pytest.fixture
async def load(load_later: Load) -> Load:
    await oracle.install(load_later.database)
    return load_later


@pytest.fixture(scope="module")
def own_postgres(servers: object) -> Iterator[Servers]:
    """A Postgres that the tests of a file may hurt."""
    with own_servers(redis_url="redis://elsewhere/") as started:
        yield started


@pytest.fixture
def own_database(own_postgres: Servers) -> Iterator[str]:
    assert own_postgres.postgres
    with fresh_database(own_postgres.postgres.url) as url:
        asyncio.run(upgrade(url))
        yield url


@pytest.fixture
def hurt(own_database: str, tmp_path: Path, redis_url: str) -> Iterator[Processes]:
    """Processes on that Postgres."""
    with processes(tmp_path, own_database, redis_url) as started:
        yield started


class Poster:
    """Posts single jobs to processes, in turn, until it is told to stop."""

    def __init__(self, load: Load, *processes: Process) -> None:
        self.load, self.processes = load, list(processes)
        self.statuses: list[int] = []
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, count: int = 4) -> Poster:
        self._tasks = [asyncio.create_task(self._post(n)) for n in range(count)]
        return self

    async def _post(self, n: int) -> None:
        while not self._stopped:
            process = self.processes[n % len(self.processes)]
            self.statuses.append(await self.load.one(process, self.load.job("noop")))
            n += 1
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)
