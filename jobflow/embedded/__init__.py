"""Private PostgreSQL and Valkey for `jobflow dev` and for the tests: loopback only, stopped by whoever started them.

The data folder (mode 0700) holds::

    jobflow.lock   one run at a time      password      of both servers (0600)
    postgres/      the database           valkey/       the queue's copy in Redis
    *.log          what the servers say   *.port        where they listen, the same port at each start
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path
from typing import IO, NamedTuple

from jobflow.embedded.postgres import Postgres
from jobflow.embedded.process import EmbeddedError, Interrupted, Say
from jobflow.embedded.valkey import Valkey

__all__ = ["EmbeddedError", "Interrupted", "Servers", "Urls"]


class Urls(NamedTuple):
    database_url: str
    redis_url: str


class Servers:
    """Starts and stops the servers whose URL is not given."""

    def __init__(
        self,
        data: Path,
        *,
        database_url: str = "",
        redis_url: str = "",
        durable: bool = True,
        postgres: Path | None = None,
        redis: Path | None = None,
    ) -> None:
        """
        data: folder for everything; made when it is missing.
        database_url, redis_url: a server that runs already, used as it is.
        durable: False makes tests faster; then a crash of the machine may cost the data.
        postgres, redis: folder of ``postgres`` and ``initdb``, path of the Redis server; default: found.
        """
        self.data = data.resolve()  # the servers' command lines are searched for it
        self.given = Urls(database_url, redis_url)
        self._durable = durable
        self._postgres_programs = postgres
        self._redis_program = redis
        self._cancelled = False
        self._lock: IO[str] | None = None
        self.postgres: Postgres | None = None
        self.valkey: Valkey | None = None

    def start(self, say: Say = lambda sentence: None) -> Urls:
        """Start what is missing and return when it answers.

        say: takes one sentence when something takes a while.
        Raises EmbeddedError, after stopping what was started; Interrupted after ``cancel()``.
        """
        if all(self.given):
            return self.given
        try:
            return self._start(say)
        except OSError as error:
            self.stop()
            raise EmbeddedError(
                f"The data folder {self.data} cannot be used: {error.strerror or error} "
                f"({error.filename or 'no file'}). Mend that, or set JOBFLOW_DATA to another folder."
            ) from error
        except BaseException:
            self.stop()
            raise

    def cancel(self) -> None:
        """Make a ``start()`` that is under way give up. Safe to call from a signal handler."""
        self._cancelled = True

    def stop(self) -> None:
        """Stop what ``start()`` started and give the data folder free."""
        for server in self._both():
            server.stop()
        if self._lock:
            self._lock.close()
            self._lock = None

    def clear(self) -> None:
        """End servers that a killed run left behind, without starting any. Raises EmbeddedError: that run still lives."""
        with take(self.data):
            self._find("", lambda sentence: None)
            for server in self._both():
                server.remove_leftover()

    def _start(self, say: Say) -> Urls:
        self._lock = take(self.data)
        known = self._known_password()
        password = known or secrets.token_hex(24)
        self._find(password, say)
        if not known:
            self._keep(password)
        for server in self._both():
            server.start()
        return Urls(
            database_url=self.postgres.url if self.postgres else self.given.database_url,
            redis_url=self.valkey.url if self.valkey else self.given.redis_url,
        )

    def _find(self, password: str, say: Say) -> None:
        """The servers that are not given, both before either starts: what is not installed shall be told at once."""
        if not self.given.database_url:
            self.postgres = Postgres(
                self.data / "postgres",
                password=password,
                durable=self._durable,
                programs=self._postgres_programs,
                say=say,
                pause=self._pause,
            )
        if not self.given.redis_url:
            self.valkey = Valkey(
                self.data / "valkey", password=password, program=self._redis_program, say=say, pause=self._pause
            )

    def _both(self) -> list[Postgres | Valkey]:
        return [server for server in (self.postgres, self.valkey) if server]

    def _pause(self) -> None:
        if self._cancelled:
            raise Interrupted("The start was given up.")
        time.sleep(0.01)

    def _known_password(self) -> str:
        file = self.data / "password"
        return file.read_text().strip() if file.exists() else ""

    def _keep(self, password: str) -> None:
        """Write a new password down, once a database made with another one (the file was lost) has taken it."""
        partial = self.data / "password.new"
        partial.unlink(missing_ok=True)
        with open(partial, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f"{password}\n")
        if self.postgres:
            self.postgres.set_passwords()
        partial.rename(self.data / "password")


def take(data: Path) -> IO[str]:
    """Make the data folder if needed and lock it until the file that is returned is closed or we die.

    Raises EmbeddedError: another run has it, or it is somebody's folder with other things in it.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = data / "jobflow.lock"
    if not lock.exists() and any(data.iterdir()):
        raise EmbeddedError(f"{data} is not empty and not Jobflow's: set JOBFLOW_DATA to another folder.")
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise EmbeddedError(
            f"Another `jobflow dev` uses {data} (process {holder}): stop it, or set JOBFLOW_DATA to another folder."
        ) from None
    data.chmod(0o700)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
