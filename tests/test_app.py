"""The parts are put together, started and ended in the right order, and a start that fails says why."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading

import msgspec
import pytest
import redis
from litestar import Litestar

from jobflow.app import SIGNALS, create_app
from jobflow.errors import SchemaTooNew, SettingsError, StoreUnavailable
from jobflow.events import Event, Warned
from jobflow.pool import Connection
from jobflow.settings import Settings, variables
from tests.support.parts import NOWHERE
from tests.support.process import ROOT
from tests.support.waiting import until


async def connections(database: Connection) -> int:
    return int(
        await database.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobflow' AND datname = current_database()"
        )
    )


async def refusal(app: Litestar) -> Exception:
    """What the start left for whoever runs the application; Litestar wraps what it raises."""
    with pytest.raises(ExceptionGroup):
        async with app.lifespan():
            raise AssertionError("it has started")
    error = app.state.error
    assert isinstance(error, Exception)
    return error


async def test_after_the_lifespan_nothing_is_left_open(settings: Settings, database: Connection) -> None:
    before = set(threading.enumerate())
    app = create_app(settings)
    async with app.lifespan():
        await until(lambda: connections(database), lambda n: n > 3)
    await until(lambda: connections(database), lambda n: n == 0)
    assert {t.name for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio")} == set()
    assert await database.fetchval("SELECT state FROM workers") == "stopped"


async def test_it_drains_when_its_server_fails_too(settings: Settings, database: Connection) -> None:
    app = create_app(settings)

    async def running() -> int:
        return int(await database.fetchval("SELECT count(*) FROM jobs WHERE status = 'processing'"))

    async def serve() -> None:
        async with app.lifespan():
            await app.parts.client.enqueue("sleep", {"seconds": 1.5})  # type: ignore[attr-defined]
            await until(running)
            raise RuntimeError("the server")

    with pytest.raises(ExceptionGroup):
        await serve()
    assert await database.fetchval("SELECT count(*) FROM jobs_done") == 1
    assert await database.fetchval("SELECT state FROM workers") == "stopped"


async def test_postgres_is_away_at_the_start(settings: Settings) -> None:
    app = create_app(msgspec.structs.replace(settings, database_url="postgresql://a:b@127.0.0.1:1/c"))
    assert isinstance(await refusal(app), StoreUnavailable)


async def test_a_database_of_a_newer_version_is_left_alone(settings: Settings, database: Connection) -> None:
    await database.execute("UPDATE alembic_version SET version_num = '9999'")
    assert isinstance(await refusal(create_app(settings)), SchemaTooNew)
    assert await database.fetchval("SELECT count(*) FROM workers") == 0
    await until(lambda: connections(database), lambda n: n == 0)


async def test_a_start_that_fails_half_way_closes_what_it_opened(settings: Settings, database: Connection) -> None:
    await database.execute("DROP TABLE workers CASCADE")
    assert "workers" in str(await refusal(create_app(settings)))
    await until(lambda: connections(database), lambda n: n == 0)
    gc.collect()  # an open connection would warn now


def test_handlers_that_are_not_there_stop_the_building(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="no_such_module"):
        create_app(msgspec.structs.replace(settings, handlers="no_such_module"))


async def test_redis_may_be_away_at_the_start(settings: Settings) -> None:
    app = create_app(msgspec.structs.replace(settings, redis_url=NOWHERE))
    async with app.lifespan():
        pass
    assert not hasattr(app.state, "error")


async def test_a_redis_that_drops_keys_is_warned_of(settings: Settings) -> None:
    seen: list[Event] = []
    app = create_app(settings)
    app.parts.events.subscribe(seen.extend)  # type: ignore[attr-defined]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with app.lifespan():
                pass
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in next(event for event in seen if isinstance(event, Warned)).message


SCRIPT = """
import asyncio, os, signal, sys
from jobflow.app import create_app
from jobflow.settings import load

def before(number, frame):
    print("before", number, app.parts.engine.state, flush=True)
    ended.set()

async def main():
    global app, ended
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, before)
    app = create_app(load(os.environ))
    async with app.lifespan():
        await app.parts.client.enqueue("sleep", {"seconds": 2})
        while not app.parts.engine._slots.runs:
            await asyncio.sleep(0.01)
        for number in SENT:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.1)
            print("meanwhile", app.parts.engine.state, flush=True)
        await asyncio.wait_for(ended.wait(), 20)
    print("restored", signal.getsignal(signal.SIGTERM) is before, signal.getsignal(signal.SIGINT) is before, flush=True)

asyncio.run(main())
"""


def told(settings: Settings, sent: str, **changes: str) -> list[str]:
    environ = {name: value for name, value in os.environ.items() if name not in {env for env, *_ in variables()}} | {
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "JOBFLOW_HANDLERS": "tests.support.handlers",
        "JOBFLOW_LOG_LEVEL": "error",
        **changes,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("SENT", sent)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_signal_drains_before_whoever_had_it_before_is_called(settings: Settings) -> None:
    """An ASGI server that stopped first would wait for open event streams, and workers would not be drained at all."""
    lines = told(settings, "[signal.SIGTERM]")
    assert lines == ["meanwhile draining", f"before {signal.SIGTERM.value} stopped", "restored True True"]


def test_a_second_signal_hurries(settings: Settings) -> None:
    lines = told(settings, "[signal.SIGINT, signal.SIGTERM]", JOBFLOW_GRACE="100")
    assert lines[0] == "meanwhile draining"
    assert f"before {signal.SIGINT.value} stopped" in lines
    assert len([line for line in lines if line.startswith("before")]) == 1


async def test_in_another_thread_signals_are_left_alone(settings: Settings) -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    found: list[object] = []

    def serve() -> None:
        async def main() -> None:
            app = create_app(settings)
            async with app.lifespan():
                found.extend(signal.getsignal(number) for number in SIGNALS)

        asyncio.run(main())

    await asyncio.to_thread(serve)
    assert found == handlers
