"""Processes that a run has started, with their children: how signals reach them, what they use."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

from bench.figures import Figures

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children: Postgres has one for each connection."""
    children = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                children.append(int(entry.name))
    return [pid, *children]


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process and its children have used, those that ended too.

    Raises OSError: it is gone.
    """
    total = _times(pid, 4)
    for child in family(pid)[1:]:
        with suppress(OSError):  # it ended meanwhile
            total += _times(child, 2)
    return total


def _times(pid: int, count: int) -> float:
    """Sum of the first ``count`` of utime, stime, cutime and cstime; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 11 + count])) / TICKS


def memory_of(pid: int, *, peak: bool = False) -> float:
    """Resident memory of one process in MB, now or at its highest. Raises OSError: it is gone."""
    name = "VmHWM" if peak else "VmRSS"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


class Meter:
    """Processor time from now on, of processes with a name each."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._before = {name: cpu_of(pid) for name, pid in pids.items()}

    def read(self, jobs: int) -> Figures:
        """Seconds for each 1,000 jobs, as ``NAME_cpu``."""
        return {f"{name}_cpu": (cpu_of(pid) - self._before[name]) / jobs * 1e3 for name, pid in self._pids.items()}


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_with_us() -> None:
    """In a child before it starts: a run that is killed must not leave processes behind."""
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
