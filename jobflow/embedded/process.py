"""One server program as a process of our own: a free loopback port, start, ready, stop, and what a crash left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar

from jobflow.errors import JobflowError

Say = Callable[[str], None]
Pause = Callable[[], None]  # waits a moment; raises Interrupted when the start shall be given up

READY_WITHIN = 300.0  # seconds: a database that crashed under load reads its log first
TRIES = 10
LOG_BYTES = 10_000_000


class EmbeddedError(JobflowError):
    """A private server cannot be prepared or started; the sentence says what to do."""


class Interrupted(EmbeddedError):
    """The start was given up because somebody asked for it."""


class Server:
    """What PostgreSQL and Valkey have in common.

    ``folder`` holds the server's data; log, port and settings lie beside it under the same name.
    """

    name: ClassVar[str]
    endings: ClassVar[Sequence[tuple[signal.Signals, float]]]  # (signal, seconds it may take), one after another

    def __init__(self, folder: Path, *, say: Say, pause: Pause) -> None:
        self.folder = folder
        self.say = say
        self.pause = pause
        self.log = folder.with_suffix(".log")
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    # What each server knows about itself.

    def command(self) -> list[str]:
        """The program and its arguments, listening on ``self.port``."""
        raise NotImplementedError

    @property
    def mark(self) -> str:
        """A part of the command line that only a server on our folder has."""
        raise NotImplementedError

    def answers(self, pid: int) -> bool:
        """Whether the process we started takes commands."""
        raise NotImplementedError

    def recorded_pid(self) -> int | None:
        """The process that wrote the pid file in ``folder``; it may be long gone, or somebody else's by now."""
        raise NotImplementedError

    def repaired(self, problem: str) -> bool:
        """Try to mend what ``problem``, the log of a failed start, is about; True: worth another try."""
        return False

    # What they share.

    def start(self) -> None:
        """Start the server and return when it answers. Raises EmbeddedError."""
        self.remove_leftover()
        for _ in range(TRIES):
            self.port = free_port(self.folder.with_suffix(".port"))
            with open_log(self.log) as log:
                begin = log.tell()
                self.process = spawn(self.command(), log, cwd=self.folder)
            if self._became_ready(self.process):
                return
            problem = read_from(self.log, begin)
            if "already in use" not in problem and not self.repaired(problem):
                break
        raise EmbeddedError(f"{self.name} does not start: {first_error(problem)} See {self.log}.")

    def _became_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server answers; False: it ended instead."""
        began, said = time.monotonic(), False
        while process.poll() is None:
            if self.answers(process.pid):
                return True
            waited = time.monotonic() - began
            if waited > 5 and not said:
                said = True
                self.say(f"Waiting for {self.name}, which may be recovering from a crash ...")
            if waited > READY_WITHIN:
                raise EmbeddedError(f"{self.name} did not answer within {READY_WITHIN:.0f} seconds. See {self.log}.")
            self.pause()
        return False

    def remove_leftover(self) -> None:
        """Stop the server that an earlier run left behind on our folder, if there is one."""
        pid = self.recorded_pid()
        if pid and self.owns(pid):
            self._end(pid, lambda: is_running(pid))

    def owns(self, pid: int) -> bool:
        """Whether this process is a server on our folder: numbers of processes are used again."""
        return is_running(pid) and self.mark in command_of(pid)

    def stop(self) -> None:
        """Stop the server and wait for its end; does nothing when it does not run."""
        if process := self.process:
            self._end(process.pid, lambda: process.poll() is None)
            self.process = None

    def _end(self, pid: int, running: Callable[[], bool]) -> None:
        for number, seconds in self.endings:
            if running():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while running() and time.monotonic() < deadline:
                time.sleep(0.01)


def spawn(
    command: Sequence[str], log: IO[bytes], *, cwd: Path | None = None, stdin: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C in the terminal reaches only us."""
    # Variables such as PGPORT would change what the programs do, and we read English messages.
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))} | {"LC_ALL": "C"}
    return subprocess.Popen(  # noqa: S603
        command, stdin=stdin, stdout=log, stderr=log, cwd=cwd, env=environ, start_new_session=True
    )


def run(name: str, command: Sequence[str], log: Path, pause: Pause, stdin: bytes = b"") -> None:
    """Run a program to its end, its output into ``log``.

    name: what a sentence calls it.
    Raises EmbeddedError when it fails; Interrupted.
    """
    with open_log(log) as file, tempfile.TemporaryFile(dir=log.parent) as source:
        source.write(stdin)
        source.seek(0)
        begin = file.tell()
        process = spawn(command, file, stdin=source)
    try:
        while process.poll() is None:
            pause()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # initdb has children
            process.wait()
    output = read_from(log, begin)
    if process.returncode or "FATAL:" in output or "ERROR:" in output:  # `postgres --single` ends with 0 either way
        raise EmbeddedError(f"{name} failed: {first_error(output)} See {log}.")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Where nobody reaps orphans, as in many containers, a dead process stays visible as a zombie.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True


def command_of(pid: int) -> str:
    """The command line of a process, empty if it cannot be told."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    with suppress(OSError, subprocess.SubprocessError):
        ps = ["ps", "-o", "command=", "-p", str(pid)]  # macOS has no /proc
        return subprocess.run(ps, capture_output=True, text=True, timeout=5).stdout  # noqa: S603
    return ""


def free_port(remembered: Path) -> int:
    """The port written in ``remembered`` while nobody listens on it, else another one, which is written there."""
    for port in (number_in(remembered), 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
                port = int(probe.getsockname()[1])
                remembered.write_text(f"{port}\n")
                return port
    raise EmbeddedError("No port is free on 127.0.0.1.")


def number_in(file: Path) -> int | None:
    """The positive number a file begins with, else None."""
    with suppress(OSError, ValueError, IndexError):
        number = int(file.read_text().split()[0])
        return number if 0 < number < 2**31 else None
    return None


def open_log(log: Path) -> IO[bytes]:
    too_long = log.exists() and log.stat().st_size > LOG_BYTES
    return log.open("wb" if too_long else "ab")


def read_from(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read(100_000).decode(errors="replace")


def first_error(output: str) -> str:
    """The first line that tells of an error, with its hint, without time stamps and the like."""
    # Valkey begins its lines with "123:M 24 Nov 2026 10:00:00.000 # "; its last one says why it ends.
    lines = [re.sub(r"^\d+:\w [\w :.]+ [#*.-] ", "", line).strip() for line in output.splitlines() if line.strip()]
    told = [
        line.partition(mark)[2].strip().rstrip(".") + "."
        for line in lines
        for mark in ("PANIC:", "FATAL:", "ERROR:", "error:", "HINT:")
        if mark in line
    ]
    if told:
        return " ".join(told[: 2 if "HINT:" in output else 1])
    return lines[-1].rstrip(".") + "." if lines else "it said nothing."
