"""Jobflow as people start it: in a process of its own, told by its words, ended by its number."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobflow.embedded.process import command_of
from jobflow.settings import variables

PATIENCE = 180  # seconds after which a process that does not say what it should is killed


class Command:
    """``python -m jobflow ARGUMENTS`` in a working folder of its own."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in {env for env, *_ in variables()}}
        self.folder = folder
        self.stdout = folder / "stdout"
        with self.stdout.open("ab") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobflow", *arguments],
                cwd=folder,
                env=environ | settings,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
            )
        self._guard = threading.Timer(PATIENCE, self.process.kill)
        self._guard.start()
        self.said = ""

    def wait_for(self, words: str) -> None:
        """Read standard error until a line with these words."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"{words!r} was never said, but: {self.said}")

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if one is given, and wait for the end. Returns the exit status."""
        if number:
            self.process.send_signal(number)
        self.said += self.process.communicate()[1]
        self._guard.cancel()
        return self.process.returncode

    def left(self) -> list[str]:
        """Command lines of processes that use the folder."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if Path("/proc").exists() else []
        return [line for pid in pids if str(self.folder) in (line := command_of(pid))]


@contextmanager
def running(folder: Path, *arguments: str, **settings: str) -> Iterator[Command]:
    """A command that is ended with the block, whatever happens in it."""
    command = Command(folder, *arguments, **settings)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.end(signal.SIGTERM)
        elif command.process.stderr:
            command.process.stderr.close()
        command._guard.cancel()


# Below those that the system hands out to others, and far from those of another process of tests.
PORTS = range(20_000, 32_000)
first = os.getpid() * 997 % len(PORTS)
ports = itertools.cycle([*PORTS[first:], *PORTS[:first]])


def free_port() -> int:
    """A port that nobody uses, another one each time: nobody else takes it before who asked for it does."""
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def get(url: str) -> int:
    """The status of a GET."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return int(answer.status)
