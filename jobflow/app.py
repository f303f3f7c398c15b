"""Builds every part once and hands it out; the only module that knows them all."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType

from litestar import Litestar

from jobflow import __version__, failpoints, logs, migrate, registry
from jobflow.broker import Broker
from jobflow.client import Client
from jobflow.engine.engine import Engine
from jobflow.errors import BrokerUnavailable, JobflowError
from jobflow.events import Events, Warned
from jobflow.intake import Intake
from jobflow.metrics import Metrics
from jobflow.pool import Pool
from jobflow.pusher import Pusher
from jobflow.settings import Settings
from jobflow.store import Store
from jobflow.web import Hub, Parts, build_app

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def create_app(settings: Settings) -> Litestar:
    """The whole of Jobflow as one ASGI application: API, workers, schedulers.

    settings: ``database_url`` and ``redis_url`` must be set.
    Raises SettingsError when a handlers module cannot be imported; the rest is opened by the lifespan, which leaves a
    failure in ``app.state.error``, as does a process that gives up.
    """
    events = Events()
    log = logs.setup(settings, events)
    metrics = Metrics(events, __version__)
    failpoints.arm(settings.failpoints)
    if settings.failpoints:
        events.emit(Warned(f"JOBFLOW_FAILPOINTS is set: this process may die on purpose ({settings.failpoints})."))
    handlers = registry.load(settings.handler_modules)
    # The engine's loops hold one connection each; a dashboard search must not starve them, nor they the API.
    engine_share = 10
    pool = Pool(settings.database_url, shares={"engine": engine_share, "web": settings.pool_size - engine_share})
    broker = Broker(settings.redis_url, lane_size=settings.lane_size, pool_size=settings.redis_pool_size)
    engine_store, web_store = Store(pool, "engine"), Store(pool, "web")
    pusher = Pusher(broker)
    client = Client(web_store, Intake(web_store), pusher, broker, handlers, events)
    engine = Engine(
        settings, version=__version__, store=engine_store, broker=broker, pusher=pusher, client=client,
        registry=handlers, events=events, lag=metrics.set_loop_lag,
    )  # fmt: skip

    hub = Hub(web_store, hears=lambda: engine.broker_up)
    engine.hints.told, engine.hints.moved = hub.told, hub.moved

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        try:
            await migrate.upgrade(settings.database_url)
            await _check_broker(broker, events)
            async with handlers.state() as state:
                await engine.start(state)
                try:
                    with _draining(engine, hub) as end:
                        engine.hopeless = partial(_give_up, app, end)
                        yield
                finally:
                    hub.close()
                    await engine.drain()
        except Exception as error:
            app.state.error = error
            raise
        finally:
            await client.close()
            await broker.close()
            await pool.close()
            log.close()

    parts = Parts(
        settings=settings, hub=hub, client=client, store=web_store, broker=broker, engine=engine,
        registry=handlers, events=events, metrics=metrics,
    )  # fmt: skip
    return build_app(parts, lifespan)


async def _check_broker(broker: Broker, events: Events) -> None:
    """Redis may be away at the start: jobs are then taken from Postgres."""
    try:
        if warning := await broker.check():
            events.emit(Warned(warning))
    except BrokerUnavailable:
        pass  # the first pop says so


def _give_up(app: Litestar, end: Callable[[], None]) -> None:
    """No slot is left and none will be: whatever keeps processes running starts a new one."""
    app.state.error = JobflowError(
        "Every slot is held by a handler that does not end, so this process ends: start it again. "
        "`run_stuck` in the log names the jobs."
    )
    end()


@contextmanager
def _draining(engine: Engine, hub: Hub) -> Iterator[Callable[[], None]]:
    """Drain at the first signal, while HTTP still answers, and only then let the server stop.

    An ASGI server ends its lifespan after the last connection closed, and an open event stream never does: workers that
    were drained there would not be drained at all. The second signal cuts the grace period short.

    Yields what ends this process as SIGTERM does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals belong to somebody else; the lifespan's end drains
        return
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    async def drain(number: int) -> None:
        hub.close()
        try:
            await engine.drain()
        finally:
            before[number](number, None)

    def begin(number: int) -> None:
        if tasks:
            engine.hurry()
        else:
            tasks.append(loop.create_task(drain(number)))

    def catch(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin, number)

    for wanted in SIGNALS:
        handler = signal.getsignal(wanted)
        before[wanted] = handler if callable(handler) else lambda number, frame: None
        signal.signal(wanted, catch)
    try:
        yield lambda: begin(signal.SIGTERM)
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
