"""Many processes, two servers, people and misfortune, all drawn from one seed; the invariants are checked at every step."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

from jobflow.client import DeadFilter, JobRequest
from jobflow.errors import JobflowError
from jobflow.ledger import Submission
from jobflow.lifecycle import OPEN, Status
from tests.simulation.clock import VirtualLoop
from tests.simulation.guards import switched_off
from tests.simulation.network import Server
from tests.simulation.postgres import Postgres
from tests.simulation.process import LEASE, QUEUES, TYPES, Process, patched
from tests.simulation.redis import Redis
from tests.simulation.rules import Broken, Rules

PROCESSES = 3
STORM = 30.0  # seconds of misfortune
SETTLE = 5.0  # until the last one has ended by itself
CALM = 15.0  # of peace, before it is looked whether everything goes on
PATIENCE = 10.0  # seconds of peace within which whatever is due has been claimed (I11), and lost runs are rescued
JUMP = 0.3  # seconds that Postgres' clock may jump
ALL_EVERY = 2_000  # steps between two checks of everything
TRACE = 50


# What may happen, and how often compared to the others: the methods of World that begin with `_on_`.
MISFORTUNES = {
    "kill": 3, "pause": 4, "block": 3, "cut": 4, "lossy": 4, "drain": 2, "flush": 2, "redis_away": 2, "redis_cut": 2,
    "redis_lossy": 2, "stale": 1, "rush": 1, "postgres_crash": 1, "postgres_still": 1, "clock": 1,
}  # fmt: skip


class World:
    """``off``: guards that are taken out of the product. ``misfortunes``: what happens, and how often compared to the others.
    ``storm``: seconds of it before each peace. Equal arguments give equal runs."""

    def __init__(
        self, seed: int, off: Iterable[str] = (), misfortunes: Mapping[str, int] = MISFORTUNES, storm: float = STORM
    ) -> None:
        self.seed, self.off, self._misfortunes, self._storm = seed, frozenset(off), misfortunes, storm
        self.random = Random(seed)
        self.loop = VirtualLoop(self.random)
        self.rules = Rules()
        self.jump = 0.0
        self.model = Postgres(lambda: self.loop.now + self.jump, self.rules, off)
        self.model.guilty = self._guilty
        self.server = Server(self.loop, self.model, self.random, self.note)
        self.redis = Redis(self.loop, self.random, self.note)
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.processes: list[Process] = []
        self.owners: dict[UUID, Process] = {}
        self.graves: list[Process] = []
        self.made = self.made_keys = 0
        self.calm = self.over = False
        self.broken: str | None = None
        self.happened: dict[str, int] = {}
        self._recent: deque[UUID] = deque(maxlen=200)
        self.loop.set_exception_handler(self._unhandled)

    # ---- running it -----------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Take so many steps. Raises Broken, with the seed, the step and what happened last."""
        collecting = gc.isenabled()
        gc.disable()  # when cycles are freed must not depend on what else runs
        try:
            with patched(self.loop, self.random), switched_off(self.off):
                for _ in range(PROCESSES):
                    self._start()
                self.loop.spawn(self.loop.world, self._history())
                self.loop.spawn(self.loop.world, self._people())
                while self.loop.steps < steps and self.broken is None:
                    self.loop.run(min(ALL_EVERY, steps - self.loop.steps))
                    self.judge("check_all", self.model)
                self._tidy_up()
        finally:
            self.loop.close()
            if collecting:
                gc.enable()
        if self.broken is not None:
            raise Broken(self.broken)

    def note(self, text: str) -> None:
        if not self.over:  # tasks are then cancelled in no certain order
            self.trace.append(f"{self.loop.steps:>8} {self.loop.now:9.4f}  {text}")

    def fail(self, text: str) -> None:
        if self.broken is None and not self.over:
            last = "\n".join(self.trace)
            self.broken = (
                f"{text}\nseed {self.seed}, step {self.loop.steps}, guards off: {sorted(self.off)}; before it:\n{last}"
            )
            self.loop.stop()

    def judge(self, rule: str, *args: Any) -> None:
        try:
            getattr(self.rules, rule)(*args)
        except Broken as error:
            self.fail(str(error))

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        if (error := context.get("exception")) is not None:
            self.fail(str(error) if isinstance(error, Broken) else f"{context.get('message')}: {error!r}")

    def _tidy_up(self) -> None:
        """Let every task end, so that nothing is left for a later collection to stumble over."""
        self.over = True
        # Before tasks are cancelled, in no certain order: some still reach a rule.
        self.counts = dict(self.rules.counts)
        for process in (*self.graves, *self.processes):
            for lane in (process.lane, process.heart):
                lane.dead = False
                self.loop.resume(lane)
        for _ in range(20):
            if not (tasks := asyncio.all_tasks(self.loop)):
                break
            for task in tasks:
                task.cancel()
            self.loop.run(len(tasks) * 10)

    # ---- processes --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.over:
            return
        self.made += 1
        self.processes.append(Process(self, f"p{self.made}"))

    def crash(self, process: Process) -> None:
        """kill -9: nothing of it takes another step; what it has sent may still arrive."""
        if process.dead:
            return
        self.note(f"{process.name} is killed")
        self.replace(process)
        for lane in (process.lane, process.heart):
            self.loop.kill(lane)

    def replace(self, process: Process) -> None:
        """It has ended, and another is started some time later."""
        if process.dead:
            return
        process.dead = True
        self.processes.remove(process)
        self.graves.append(process)
        for session in list(self.server.sessions.values()):
            if session.owner == process.name:
                self.loop.outside(self.random.random() * 0.5, session.end_later)
        self.loop.outside(0.1 + self.random.random() * (1 if self.calm else 5), self._start)

    def _guilty(self, worker: UUID) -> bool:
        """Whether anything but Postgres itself kept this process from beating lately."""
        for process in self.processes:
            if worker in process.identities:
                return process.hindered + 2 * LEASE > self.loop.now
        return True

    # ---- people -----------------------------------------------------------------------------------------------------------

    async def _people(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(8.0))
            crowded = sum(row.status in OPEN for row in self.model.jobs.values()) > 80
            # In peace there are few, so that slots fall free: without a free slot nothing has to be claimed soon.
            if self.processes and (not self.calm or self.random.random() < 0.1):
                process = self.random.choice(self.processes)
                act = self._ask if crowded or self.random.random() < 0.25 else self._submit
                self.loop.spawn(process.lane, self._politely(act, process))

    async def _politely(self, act: Any, process: Process) -> None:
        try:
            await act(process)
        except JobflowError:
            pass
        except Broken as error:
            self.fail(str(error))
        except Exception as error:
            self.fail(f"a request failed: {error!r}")

    def _request(self) -> JobRequest:
        random = self.random
        options: dict[str, Any] = {}
        if random.random() < 0.2:
            # One that is far off runs if somebody retries it.
            options["delay"] = random.random() * random.choice([6, 600])
        if random.random() < 0.1:
            options["unique_key"] = f"u{random.randrange(4)}"
            options["on_conflict"] = random.choice(["reject", "return", "replace"])
        return JobRequest(
            type=random.choice(TYPES),
            queue=random.choice(QUEUES),
            priority=random.choice([0, 5, 5, 9]),
            max_attempts=3,
            **options,
        )

    def _submit_key(self, key: str) -> Any:
        return lambda process: self._submit(process, key)

    async def _submit(self, process: Process, key: str | None = None) -> None:
        random = self.random
        jobs = [process.client.prepare(self._request()) for _ in range(random.choice([1, 1, 1, 2, 12]))]
        for job in jobs:
            if random.random() < 0.1:
                job.expires_at = self.model.now() + timedelta(seconds=random.random() * 8)
        if key is None and random.random() < 0.3:
            key = f"k{int(self.loop.now) // 5}.{random.randrange(3)}"  # the same again soon, from any process
        if key is not None:
            jobs = jobs[:1]  # so that all bodies of this key are alike
        fingerprint = hashlib.sha256((key or "").encode()).digest()
        submitted = await process.client.submit(Submission(jobs=jobs, key=key, fingerprint=fingerprint))
        ids = [job.id for job in submitted.jobs]
        if key is not None and self.rules.keys.get(key) != ids:
            raise Broken(f"I9 the key {key} was answered with {ids}, it stands for {self.rules.keys.get(key)}")
        for id in ids:
            if id not in self.rules.deleted:
                self.rules.acknowledge(id, self.model)
            self._recent.append(id)

    async def _ask(self, process: Process) -> None:
        if not self._recent:
            return
        id, client, chance = self.random.choice(self._recent), process.client, self.random.random()
        if chance < 0.05:
            await client.retry_dead(DeadFilter(ids=[*self._recent]))
        elif chance < 0.35:
            await client.retry(id)
        elif chance < 0.65:
            await client.cancel(id)
        elif chance < 0.8:
            await client.discard(id)
        else:
            await client.delete(id)

    # ---- misfortune -------------------------------------------------------------------------------------------------------

    async def _history(self) -> None:
        while True:
            end = self.loop.now + self._storm
            while self.loop.now < end:
                await asyncio.sleep(self.random.expovariate(1.0))
                name = self.random.choices(list(self._misfortunes), list(self._misfortunes.values()))[0]
                self.happened[name] = self.happened.get(name, 0) + 1
                getattr(self, "_on_" + name)()
            await self._peace()

    async def _peace(self) -> None:
        self.calm = True
        await asyncio.sleep(SETTLE)
        self.redis.loss = 0
        began = self.model.now()
        self.note("peace")
        await asyncio.sleep(CALM)
        self._check_rest(began)
        self.calm, self.redis.loss = False, 0.002

    def _check_rest(self, began: Any) -> None:
        """I11: what is due is claimed, and what runs is run by somebody."""
        latest = self.model.now() - timedelta(seconds=PATIENCE)
        running = {token for process in self.processes for token in process.engine._slots.runs}
        for row in self.model.jobs.values():
            if row.status in OPEN and max(row.run_at, row.updated_at, began) < latest:
                return self.fail(f"I11 {row.id} is due for {self.model.now() - row.run_at} and nobody claims it")
            if (
                row.status == Status.PROCESSING
                and (row.id, row.run_epoch) not in running
                and max(row.updated_at, began) < latest
            ):
                return self.fail(f"I11 {row.id} is processing and nobody runs it")
        return None

    def _some(self) -> Process | None:
        return self.random.choice(self.processes) if self.processes else None

    def _last(self, most: float) -> float:
        return self.random.random() * most

    def _on_kill(self) -> None:
        if (process := self._some()) is not None:
            self.crash(process)

    def _on_pause(self) -> None:
        """SIGSTOP, longer than the lease or not."""
        if (process := self._some()) is not None:
            self._stand(process, self._last(2.5 * LEASE), process.lane, process.heart)

    def _on_block(self) -> None:
        """The event loop does not move, the heartbeat does."""
        if (process := self._some()) is not None:
            self._stand(process, self._last(2.5 * LEASE), process.lane)

    def _stand(self, process: Process, seconds: float, *lanes: Any) -> None:
        self.note(f"{process.name} stands still for {seconds:.2f} s: {[lane.name for lane in lanes]}")
        process.hindered = max(process.hindered, self.loop.now + seconds)
        for lane in lanes:
            self.loop.pause(lane)
            self.loop.outside(seconds, self.loop.resume, lane)

    def _on_cut(self) -> None:
        if (process := self._some()) is not None:
            seconds = self._last(2.5 * LEASE)
            self.note(f"{process.name} is cut off from postgres for {seconds:.2f} s")
            process.hindered = max(process.hindered, self.loop.now + seconds + 1)
            process.link.cut = True
            self.loop.outside(seconds, setattr, process.link, "cut", False)

    def _on_stale(self) -> None:
        """It stands still right after it has sent a claim, which arrives when the process is long marked lost."""
        if (process := self._some()) is not None:
            process.link.dawdle = lambda: self._stand(process, 3 * LEASE, process.lane, process.heart)

    def _on_rush(self) -> None:
        """The same request at once, at every process."""
        self.made_keys += 1
        for process in self.processes:
            self.loop.spawn(process.lane, self._politely(self._submit_key(f"rush{self.made_keys}"), process))

    def _on_lossy(self) -> None:
        if (process := self._some()) is not None:
            process.link.loss = 0.1
            self.loop.outside(4, setattr, process.link, "loss", 0.0)

    def _on_drain(self) -> None:
        process = self._some()
        if process is not None and process.engine.state == "running":
            self.note(f"{process.name} drains")

            async def drain() -> None:
                await process.engine.drain()
                self.replace(process)

            self.loop.spawn(process.lane, drain())

    def _on_flush(self) -> None:
        self.note("redis is emptied")
        self.redis.flush()

    def _on_redis_away(self) -> None:
        if self.redis.up:
            self.note("redis is away")
            self.redis.go_away(empty=self.random.random() < 0.5)
            self.loop.outside(self._last(5), setattr, self.redis, "up", True)

    def _on_redis_cut(self) -> None:
        if (process := self._some()) is not None:
            process.broker.away = True
            self.loop.outside(self._last(5), setattr, process.broker, "away", False)

    def _on_redis_lossy(self) -> None:
        self.redis.loss = 0.2
        self.loop.outside(3, setattr, self.redis, "loss", 0.002)

    def _on_postgres_crash(self) -> None:
        """At the worst moment: right after a claim that the disk does not know of yet."""
        self.server.doomed = True
        self.loop.outside(1.0, self.server.crash)

    def _on_postgres_still(self) -> None:
        if self.server.up and not self.server.still:
            self.note("postgres stands still")
            self.server.still = True
            self.loop.outside(self._last(6), self.server.move_on)

    def _on_clock(self) -> None:
        self.jump = (self.random.random() - 0.5) * 2 * JUMP
