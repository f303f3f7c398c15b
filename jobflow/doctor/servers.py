"""Which servers to look at: those that are named, else those that `jobflow dev` runs in this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobflow.doctor.finding import Finding, ok, warn
from jobflow.embedded import EmbeddedError, Urls
from jobflow.embedded.process import is_running, number_in
from jobflow.embedded.programs import find_postgres, find_redis
from jobflow.settings import Settings


def find(settings: Settings) -> tuple[list[Finding], Urls]:
    """What is known without asking the servers, and where they are; an empty URL where there is none to ask."""
    data = Path(settings.data).expanduser().resolve()
    findings, urls = [], []
    for name, env, url, own, program in (
        ("postgres", "DATABASE_URL", settings.database_url, _postgres(data), lambda: str(find_postgres()[0])),
        ("redis", "REDIS_URL", settings.redis_url, _redis(data), lambda: str(find_redis())),
    ):
        urls.append(url or own)
        if not urls[-1]:
            findings.append(_absent(name, env, program))
    return findings, Urls(*urls)


def _absent(name: str, env: str, program: Callable[[], str]) -> Finding:
    try:
        return ok(name, f"{env} is not set; `jobflow dev` would start {program()}")
    except EmbeddedError as error:
        return warn(name, f"{env} is not set, and `jobflow dev` has no server to start", str(error))


def _postgres(data: Path) -> str:
    """The way into the PostgreSQL of the data folder, if it runs."""
    port, password = number_in(data / "postgres.port"), _password(data)
    running = _runs(data / "postgres" / "postmaster.pid")
    return f"postgresql://jobflow:{password}@127.0.0.1:{port}/jobflow" if port and password and running else ""


def _redis(data: Path) -> str:
    port, password = number_in(data / "valkey.port"), _password(data)
    return f"redis://:{password}@127.0.0.1:{port}/0" if port and password and _runs(data / "valkey" / "pid") else ""


def _runs(pid_file: Path) -> bool:
    pid = number_in(pid_file)
    return pid is not None and is_running(pid)


def _password(data: Path) -> str:
    try:
        return (data / "password").read_text().strip()
    except OSError:
        return ""
