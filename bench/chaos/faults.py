"""What each kind of fault does. A fault returns when what it hurt is whole again."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from bench.chaos.load import Load
from bench.chaos.pauses import Blow
from bench.chaos.proxy import Trap
from bench.chaos.schedule import KINDS, Fault
from bench.chaos.world import App, World
from bench.processes import family, signal_all
from jobflow.statements import LUA

POP = hashlib.sha1(LUA["pop"].encode()).hexdigest()  # how EVALSHA names it
START = 300.0  # seconds that a process may take to be ready, on a busy machine and while servers are away
SPRING = 20.0  # seconds that a trap waits for its statement


class Faults:
    """Inflicts faults one by one or at once; faults that hurt the same thing wait for each other."""

    def __init__(self, world: World, load: Load) -> None:
        self._world, self._load = world, load
        self._locks: dict[object, asyncio.Lock] = {}
        self.done: dict[str, int] = {}
        self.blows: list[Blow] = []
        self.idle: dict[str, int] = {}  # traps that nothing stepped into

    async def inflict(self, fault: Fault) -> None:
        hurts = KINDS[fault.kind].hurts
        app = self._world.apps[fault.victim]
        async with self._lock(app if hurts == "app" else hurts or fault):
            if hurts == "app":
                await asyncio.wait_for(app.ready.wait(), START)
            began = time.time()
            took_place = await self._act(fault, app)
        counts = self.idle if took_place is False else self.done
        if counts is self.done:
            self.blows.append(Blow(fault.kind, began, time.time()))
        counts[fault.kind] = counts.get(fault.kind, 0) + 1

    def _lock(self, what: object) -> asyncio.Lock:
        return self._locks.setdefault(what, asyncio.Lock())

    async def _act(self, fault: Fault, app: App) -> bool | None:
        kind, seconds = fault.kind, fault.seconds
        if kind.startswith("lost-"):
            return await self._lose_answer(fault, app)
        if kind in ("block", "stubborn", "suicide"):
            await self._submit(fault)
            return None
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": lambda: self._kill(app, seconds),
            "pause": lambda: self._pause(app, seconds),
            "restart": lambda: self._restart(app),
            "rolling": self._rolling,
            "flush": lambda: self._redis("FLUSHALL"),
            "redis-kill": lambda: self._redis_down(seconds, signal.SIGKILL, cold=True),
            "redis-away": lambda: self._redis_down(seconds, signal.SIGTERM, cold=fault.draw < 0.5),
            "redis-freeze": lambda: self._redis_freeze(seconds),
            "readonly": lambda: self._redis("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", seconds),
            "oom": lambda: self._redis("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", seconds),
            "script-flush": self._script_flush,
            "pg-crash": lambda: self._postgres_down(seconds, signal.SIGQUIT),
            "pg-away": lambda: self._postgres_down(seconds, signal.SIGINT),
            "pg-kill": self._kill_backend,
            "pg-freeze": lambda: self._postgres_freeze(seconds),
            "pg-freeze-long": lambda: self._postgres_freeze(seconds),
            "backends": self._terminate_backends,
            "delay": lambda: self._delay(app, seconds, 0.05 + 0.35 * fault.draw),
            "cut": lambda: self._cut(app),
            "isolate": lambda: self._isolate(app, seconds),
        }
        await actions[kind]()
        return None

    # ---- processes --------------------------------------------------------------------------------------------------

    async def _kill(self, app: App, seconds: float) -> None:
        app.rest = seconds
        await self._until_ready_again(app, signal.SIGKILL)

    async def _restart(self, app: App) -> None:
        await self._until_ready_again(app, signal.SIGTERM)

    async def _until_ready_again(self, app: App, number: signal.Signals) -> None:
        process = app.process
        app.send(number)
        app.undisturbed = None
        while app.process is process:
            await asyncio.sleep(0.02)
        await asyncio.wait_for(app.ready.wait(), START)

    async def _pause(self, app: App, seconds: float) -> None:
        app.send(signal.SIGSTOP)
        app.undisturbed = None
        await asyncio.sleep(seconds)
        app.send(signal.SIGCONT)
        app.undisturbed = time.time()

    async def _rolling(self) -> None:
        for app in self._world.apps:
            async with self._lock(app):
                await asyncio.wait_for(app.ready.wait(), START)
                await self._restart(app)

    # ---- Redis ------------------------------------------------------------------------------------------------------

    async def _redis(self, command: str, undo: str = "", seconds: float = 0.0) -> None:
        async with self._client() as client:
            await client.execute_command(command)
            if undo:
                await asyncio.sleep(seconds)
                await client.execute_command(undo)

    async def _script_flush(self) -> None:
        async with self._client() as client:
            await client.execute_command("SCRIPT FLUSH")
            await client.execute_command("CLIENT KILL TYPE normal SKIPME yes")

    async def _redis_down(self, seconds: float, number: signal.Signals, *, cold: bool) -> None:
        server = self._world.valkey
        assert server.process is not None
        server.process.send_signal(number)
        await _ended(server.process)
        if cold:
            shutil.rmtree(server.folder / "appendonlydir", ignore_errors=True)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)

    async def _redis_freeze(self, seconds: float) -> None:
        assert self._world.valkey.process is not None
        pids = [self._world.valkey.process.pid]
        signal_all(pids, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        signal_all(pids, signal.SIGCONT)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[redis.asyncio.Redis]:
        retry = Retry(ConstantBackoff(0.2), 50)
        client = redis.asyncio.Redis.from_url(self._world.valkey.url, socket_timeout=5, retry=retry)
        try:
            yield client
        finally:
            await client.aclose()

    # ---- Postgres ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _outage(self) -> AsyncIterator[None]:
        began = time.time()
        try:
            yield
        finally:
            self._world.outages.append((began, time.time()))

    async def _postgres_down(self, seconds: float, number: signal.Signals) -> None:
        server = self._world.postgres
        async with self._outage():
            assert server.process is not None
            server.process.send_signal(number)
            await _ended(server.process)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(server.start)

    async def _kill_backend(self) -> None:
        server = self._world.postgres
        assert server.process is not None
        async with self._outage():
            connection = await self._world.connect()
            statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobflow' ORDER BY pid LIMIT 1"
            pid = await connection.fetchval(statement)
            if pid is None:
                pid = connection.get_server_pid()
            signal_all([pid], signal.SIGKILL)
            while not connection.is_closed():  # Postgres ends all others, ours too
                await asyncio.sleep(0.01)
            await (await self._world.connect()).close()

    async def _postgres_freeze(self, seconds: float) -> None:
        server = self._world.postgres
        assert server.process is not None
        async with self._outage():
            signal_all([server.process.pid], signal.SIGSTOP)  # no more children
            pids = family(server.process.pid)
            signal_all(pids, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            signal_all(pids, signal.SIGCONT)

    async def _terminate_backends(self) -> None:
        async with self._outage():
            connection = await self._world.connect()
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobflow'"
            )
            connection.terminate()

    # ---- connections ------------------------------------------------------------------------------------------------

    async def _delay(self, app: App, seconds: float, delay: float) -> None:
        app.postgres.delay = app.redis.delay = delay
        await asyncio.sleep(seconds)
        app.postgres.delay = app.redis.delay = 0.0

    async def _cut(self, app: App) -> None:
        app.postgres.cut()
        app.redis.cut()
        app.undisturbed = time.time()

    async def _isolate(self, app: App, seconds: float) -> None:
        app.postgres.hold()
        app.undisturbed = None
        await asyncio.sleep(seconds)
        app.postgres.release()
        app.undisturbed = time.time()

    async def _lose_answer(self, fault: Fault, app: App) -> bool:
        statement = {"lost-enqueue": "insert_jobs", "lost-claim": "claim_jobs", "lost-completion": "complete_jobs"}
        proxy = app.redis if fault.kind == "lost-pop" else app.postgres
        wanted = POP if fault.kind == "lost-pop" else f"-- {statement[fault.kind]}:"
        trap = Trap(lambda text: wanted in text, silent=fault.draw < 0.25)
        while proxy.trap is not None:  # another one waits there
            await asyncio.sleep(0.05)
        proxy.trap = trap
        try:
            await asyncio.wait_for(trap.sprung.wait(), SPRING)
        except TimeoutError:
            return False
        finally:
            if proxy.trap is trap:
                proxy.trap = None
        return True

    # ---- handlers ---------------------------------------------------------------------------------------------------

    async def _submit(self, fault: Fault) -> None:
        payload: dict[str, object] = {"seconds": fault.seconds}
        if fault.kind == "suicide":
            # One in six goes on until it is given up.
            payload = {"deaths": 3 if fault.draw < 1 / 6 else 1, "how": "exit" if fault.draw > 0.6 else "kill"}
        await self._load.submit([{"type": f"chaos.{fault.kind}", "payload": payload}])


async def _ended(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        await asyncio.sleep(0.01)
