"""The client: sends jobs to whichever process answers, repeats with the same key, and writes down what was acknowledged."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx

from bench.chaos.world import App, World

SENDERS = 48  # requests at once
SHUN = 3.0  # seconds that a process is passed over after it did not answer, as a load balancer would
PATIENCE = 8.0  # seconds for an answer
PLAIN, ONE, TWICE = (
    0.1,
    0.55,
    0.05,
)  # share of requests without a key · up to which there is one job in it · sent to two
AGAIN = {409, 429, 503}  # try again: the key is in flight, too many requests, away or draining

Job = dict[str, Any]


class Load:
    """Every job carries its number ``n`` in the payload: rows are told apart by it, whatever ids they have.

    acknowledged: number → id, as a 201 said. unknown: numbers sent once, without a key, that were not answered.
    """

    def __init__(self, world: World, *, jobs: int, seconds: float, seed: int, record: Path) -> None:
        self._world, self._jobs, self._seconds = world, jobs, seconds
        self._chance = random.Random(seed)
        self._record = record.open("w")
        self._http = httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=200))
        self._next_app = 0
        self._shunned = dict.fromkeys(range(len(world.apps)), 0.0)  # until when
        self._number = 0
        self._keys = 0
        self.acknowledged: dict[int, str] = {}
        self.unknown: set[int] = set()
        self.repeats = 0
        self.replays = 0

    @property
    def sent(self) -> int:
        return self._number

    async def run(self) -> None:
        """Send all jobs, spread over the time given; returns when each has been answered."""
        began = time.monotonic()
        limit = asyncio.Semaphore(SENDERS)
        # Half of the requests carry one job, the others so many that the rate comes out at about four a second.
        most = max(int(2 * self._jobs / self._seconds / 4 / (1 - ONE)), 2)
        async with asyncio.TaskGroup() as group:
            while self._number < self._jobs:
                due = (time.monotonic() - began) / self._seconds * self._jobs
                if self._number >= due:
                    await asyncio.sleep(0.02)
                    continue
                draw = self._chance.random()
                count = 1 if draw < ONE else min(self._chance.randint(2, most), self._jobs - self._number)
                await limit.acquire()
                jobs = [self._make() for _ in range(count)]
                task = group.create_task(self._send_plain(jobs) if draw < PLAIN else self.submit(jobs))
                task.add_done_callback(lambda _: limit.release())

    async def submit(self, jobs: list[Job]) -> None:
        """Send until it is acknowledged."""
        for job in jobs:
            if "n" not in job["payload"]:
                job["payload"]["n"] = self._new_number()
        self._keys += 1
        key = f"chaos-{self._keys}"
        pair = self._chance.random() < TWICE
        answers = await asyncio.gather(*(self._until_accepted(jobs, key) for _ in range(1 + pair)))
        if len({tuple(ids) for ids in answers}) > 1:
            self._world.surprise(f"two answers for one key: {answers}")
        self._acknowledge(jobs, answers[0])

    async def close(self) -> None:
        await self._http.aclose()
        self._record.close()

    async def _until_accepted(self, jobs: list[Job], key: str) -> list[str]:
        while True:
            answer = await self._post(jobs, {"Idempotency-Key": key})
            if answer is not None and answer.status_code == 201:
                self.replays += answer.headers.get("Idempotency-Replayed") == "true"
                return _ids(answer)
            if answer is not None and answer.status_code not in AGAIN:
                self._world.surprise(f"POST with {key} was answered {answer.status_code}: {answer.text[:500]}")
            self.repeats += 1
            await asyncio.sleep(0.1 + 0.4 * random.random())

    async def _send_plain(self, jobs: list[Job]) -> None:
        """Without a key, so only once: without an answer nobody knows whether it was accepted."""
        answer = await self._post(jobs, {})
        if answer is not None and answer.status_code == 201:
            self._acknowledge(jobs, _ids(answer))
            return
        if answer is not None and answer.status_code not in AGAIN:
            self._world.surprise(f"POST was answered {answer.status_code}: {answer.text[:500]}")
        self.unknown.update(job["payload"]["n"] for job in jobs)

    async def _post(self, jobs: list[Job], headers: dict[str, str]) -> httpx.Response | None:
        app = self._choose()
        path, body = ("/jobs", jobs[0]) if len(jobs) == 1 else ("/jobs/bulk", {"jobs": jobs})
        try:
            return await self._http.post(f"{app.url}{path}", json=body, headers=headers)
        except httpx.TransportError:
            self._shunned[app.number] = time.monotonic() + SHUN
            return None

    def _choose(self) -> App:
        """In turns; of those that answered lately, if there are any."""
        for _ in self._world.apps:
            self._next_app += 1
            app = self._world.apps[self._next_app % len(self._world.apps)]
            if self._shunned[app.number] < time.monotonic():
                break
        return app

    def _acknowledge(self, jobs: list[Job], ids: list[str]) -> None:
        for job, id in zip(jobs, ids, strict=True):
            self.acknowledged[job["payload"]["n"]] = id
            self._record.write(f"{job['payload']['n']} {id}\n")

    def _new_number(self) -> int:
        self._number += 1
        return self._number

    def _make(self) -> Job:
        chance, n = self._chance, self._new_number()
        draw = chance.random()
        job: Job = {"type": "chaos.note", "payload": {"n": n}, "priority": chance.randrange(10)}
        if draw < 0.15:
            job |= {"type": "chaos.nap", "payload": {"n": n, "seconds": round(chance.uniform(0.05, 1), 3)}}
        elif draw < 0.20:
            job |= {"type": "chaos.thread", "payload": {"n": n, "seconds": round(chance.uniform(0.01, 0.3), 3)}}
        elif draw < 0.25:
            job |= {"type": "chaos.fail"}
        elif draw < 0.26:
            longest = min(self._world.lease, self._seconds / 4)
            job |= {"type": "chaos.nap", "payload": {"n": n, "seconds": round(chance.uniform(2, longest), 3)}}
        if chance.random() < 0.2:
            job["queue"] = "other"
        return job


def _ids(answer: httpx.Response) -> list[str]:
    body = answer.json()
    return [job["id"] for job in body["jobs"]] if "jobs" in body else [body["id"]]
