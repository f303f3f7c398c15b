"""From settings to a process that answers on its port, and its end by a signal with status 0."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from jobflow.errors import JobflowError, SettingsError
from jobflow.protocol import Protocol
from jobflow.settings import Settings

WATCHED = {".py", ".sql", ".lua", ".html", ".css", ".js"}
LOOK_EVERY = 0.5  # seconds between two looks for changed files
ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
BACKLOG = 2048  # connections that wait until they are accepted
HANDLER_THREADS = "handler"  # what the names of threads that run plain `def` handlers begin with
THREADS_WAIT = 0.3  # seconds for idle ones to end


class Stop:
    """Ctrl-C, SIGTERM and SIGHUP as a flag, so that none of them cuts into something half done."""

    def __init__(self) -> None:
        self.requested = False
        self.tell: Callable[[], None] = lambda: None  # whoever is busy now

    @contextmanager
    def listening(self, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Catch the signals inside the block. ``tell`` is called from the signal handler."""
        self.tell = tell
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.requested = True
        self.tell()


@contextmanager
def listening(settings: Settings, descriptors: Sequence[int] = ()) -> Iterator[list[socket.socket]]:
    """Sockets on the port, taken before anything slow, so that a port in use is told at once.

    descriptors: sockets that listen already, inherited from the parent.
    Raises SettingsError.
    """
    with ExitStack() as opened:
        if descriptors:
            yield [opened.enter_context(socket.socket(fileno=number)) for number in descriptors]
        else:
            yield [opened.enter_context(listener) for listener in _listen(settings)]


def _listen(settings: Settings) -> list[socket.socket]:
    host, port = settings.host.strip("[]"), settings.port
    sockets: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in places:
            try:
                sockets.append(_bound(family, where))
            except OSError as error:
                # `localhost` may stand for an IPv6 address, too, on a machine that has none.
                if (where == places[-1][4] and not sockets) or error.errno not in ABSENT:
                    raise
    except (socket.gaierror, UnicodeError) as error:
        raise SettingsError(f"JOBFLOW_HOST is wrong: {settings.host!r} is not an address of this machine.") from error
    except OSError as error:
        for listener in sockets:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            other = port % 65535 + 1
            sentence = (
                f"Port {port} of {host} is in use: stop the other program, or choose another, such as PORT={other}."
            )
        else:
            sentence = f"Jobflow cannot listen on port {port} of {host}: {error.strerror}. Change PORT or JOBFLOW_HOST."
        raise SettingsError(sentence) from error
    return sockets


def _bound(family: int, where: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
        listener.bind(where)
        listener.listen(BACKLOG)  # only now is the port ours: Linux lets two programs bind it
    except OSError:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """uvicorn, with a word when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What has been built by now lives as long as the process: looking through it for garbage again and again, after
        # every 700 new objects, cost a third of the POSTs and pauses of 100 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)
        if self.started and not self.should_exit:
            self._ready()


def serve_app(settings: Settings, sockets: list[socket.socket], stop: Stop, ready: Callable[[], None]) -> None:
    """Serve until a signal comes; running jobs are drained by the application before it ends.

    ready: called once, when requests are answered.
    Raises JobflowError: the application cannot be built, does not start, or gave up.
    """
    from jobflow.app import create_app

    sys.path.insert(0, os.getcwd())  # JOBFLOW_HANDLERS may name modules of the working folder
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",  # the application tells itself when it starts and stops
        access_log=False,
        proxy_headers=False,  # JOBFLOW_TRUSTED_PROXIES decides about X-Forwarded-For
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        timeout_keep_alive=75,  # longer than proxies keep their idle connections
        timeout_graceful_shutdown=5,  # open event streams never end by themselves
    )
    server = Server(config, ready)

    def refusal() -> JobflowError | None:
        error = getattr(app.state, "error", None)
        return error if isinstance(error, JobflowError) else None

    # When the start is refused on purpose a sentence is all there is to say; uvicorn would log a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: refusal() is None)

    def end() -> None:
        server.should_exit = True

    stop.tell = end
    if stop.requested:
        return
    try:
        # Its own signal handlers take over now, and after the end it raises the signals again, for ours.
        server.run(sockets)
    except SystemExit:
        if not refusal():
            raise
    if error := refusal():
        raise error


def leave(status: int) -> None:
    """End this process now, with this status, if a plain `def` handler is still at work: Python would wait for its thread.

    Call it last, when everything is closed and every server of ours has stopped; its job was handed back by the drain.
    """
    deadline = time.monotonic() + THREADS_WAIT
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(HANDLER_THREADS)]
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads any more
                stream.flush()
        os._exit(status)


def serve_and_reload(settings: Settings, sockets: list[socket.socket], stop: Stop) -> None:
    """Serve in a child, and start a new child when a file of the program changes.

    The sockets stay open meanwhile, so that requests wait for the new child instead of being refused.
    """
    descriptors = [listener.fileno() for listener in sockets]
    command = [sys.executable, "-m", "jobflow", "dev", *(f"--fd={number}" for number in descriptors)]
    environ = os.environ | {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "JOBFLOW_HOST": settings.host,
        "PORT": str(settings.port),
    }
    while not stop.requested:
        seen = file_times()
        # In a session of its own: Ctrl-C reaches us, and we tell the child, once.
        child = subprocess.Popen(command, env=environ, pass_fds=descriptors, start_new_session=True)  # noqa: S603
        while not stop.requested and file_times() == seen:
            with suppress(subprocess.TimeoutExpired):
                child.wait(LOOK_EVERY)
                time.sleep(LOOK_EVERY)  # it failed, and said why; a changed file may mend it
        child.terminate()
        child.wait()


def file_times() -> dict[Path, float]:
    """When each file of the working folder and of Jobflow that may belong to the program was changed."""
    times = {}
    for top in {Path.cwd(), Path(__file__).parent}:
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if not name.startswith(".") and name not in {"node_modules", "tests"}]
            for path in (Path(folder, file) for file in files if Path(file).suffix in WATCHED):
                with suppress(OSError):
                    times[path] = path.stat().st_mtime
    return times
