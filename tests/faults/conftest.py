"""Real processes, real signals, real servers; at the end the oracle judges."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from jobflow.pool import Connection
from tests.support import oracle
from tests.support.process import Process, Processes, processes
from tests.support.waiting import until


class Load:
    """Submits jobs and remembers which were acknowledged."""

    def __init__(self, http: httpx.AsyncClient, database: Connection, record: Path) -> None:
        self._http, self._database, self._record = http, database, record
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

    async def left(self) -> dict[str, str]:
        return await oracle.unfinished(self._database, self.acknowledged)

    async def done(self) -> int:
        return len(self.acknowledged) - len(await self.left())

    async def finished(self, *, seconds: float = 30.0) -> None:
        """Wait until every acknowledged job has ended for good, then ask the oracle."""
        await until(self.left, lambda left: not left, seconds=seconds)
        await oracle.check(self._database, self.acknowledged)

    async def running(self, count: int, *, seconds: float = 15.0) -> None:
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
    async with httpx.AsyncClient(timeout=20) as http:
        yield http


@pytest.fixture
async def load(client: httpx.AsyncClient, database: Connection, tmp_path: Path) -> Load:
    await oracle.install(database)
    return Load(client, database, tmp_path / "record")
