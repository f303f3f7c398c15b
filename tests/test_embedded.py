"""Private servers: what survives a restart, what is mended, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis

from jobflow.embedded import EmbeddedError, Interrupted, Servers, Urls, account, postgres, programs
from jobflow.embedded.process import command_of, first_error, free_port, is_running
from tests.support.servers import admin_url, execute, fetch, home
from tests.support.servers import programs as chosen

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home()) as folder:
        yield Path(folder) / "a folder's data"


@pytest.fixture
def make(data: Path) -> Iterator[Callable[..., Servers]]:
    """Servers on ``data``, stopped in the end."""
    made: list[Servers] = []

    def make(folder: Path = data, **options: Any) -> Servers:
        made.append(Servers(folder, durable=False, **chosen(), **options))
        return made[-1]

    yield make
    for servers in made:
        servers.stop()


def fails(servers: Servers) -> str:
    """The sentence that a start ends with."""
    with pytest.raises(EmbeddedError) as caught:
        servers.start()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def pids(servers: Servers) -> list[int]:
    return [server.process.pid for server in (servers.postgres, servers.valkey) if server and server.process]


def crash(data: Path) -> list[int]:
    """A run that starts the servers and dies without stopping them; their processes."""
    code = """
import os, sys
from pathlib import Path
from jobflow.embedded import Servers
postgres, redis = (Path(a) if a else None for a in sys.argv[2:])
servers = Servers(Path(sys.argv[1]), durable=False, postgres=postgres, redis=redis)
servers.start()
print(servers.postgres.process.pid, servers.valkey.process.pid, flush=True)
os._exit(1)
"""
    found = [str(chosen()[name] or "") for name in ("postgres", "redis")]
    command = [sys.executable, "-c", code, str(data), *found]
    left = [int(pid) for pid in subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.split()]
    assert all(map(is_running, left))
    return left


def test_data_ports_and_password_survive_a_restart(make: Callable[..., Servers], data: Path) -> None:
    said: list[str] = []
    servers = make()
    first = servers.start(said.append)
    execute(first.database_url, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    with redis.Redis.from_url(first.redis_url) as client:
        client.set("kept", "7")
    running = pids(servers)
    servers.stop()
    assert not any(map(is_running, running))
    assert len(said) == 1
    assert said[0].startswith("Preparing PostgreSQL")

    said.clear()
    assert first == make().start(said.append)
    assert said == []
    assert fetch(first.database_url, "SELECT id FROM kept") == 7
    with redis.Redis.from_url(first.redis_url) as client:
        assert client.get("kept") == b"7"


def test_only_we_get_in(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    urls = servers.start()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    password = (data / "password").read_text().strip()
    assert len(password) >= 32
    for file in ("password", "valkey/valkey.conf"):
        assert stat.S_IMODE((data / file).stat().st_mode) == 0o600
    for pid in pids(servers):
        assert command_of(pid)
        assert password not in command_of(pid)
    for url in urls:
        assert urlsplit(url).hostname == "127.0.0.1"
    for role in (urls.database_url, admin_url(urls.database_url)):
        with pytest.raises(asyncpg.InvalidPasswordError):
            execute(role.replace(password, "wrong"), "SELECT 1")
    with (
        redis.Redis.from_url(urls.redis_url.replace(password, "wrong")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    owner = "SELECT rolname FROM pg_database JOIN pg_roles r ON r.oid = datdba WHERE datname = current_database()"
    assert fetch(urls.database_url, owner) == "jobflow"
    assert fetch(urls.database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_what_is_committed_is_on_disk() -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
        assert name not in postgres.SETTINGS


def test_a_second_run_on_the_same_folder_is_refused(make: Callable[..., Servers], data: Path) -> None:
    urls = make().start()
    sentence = fails(make())
    assert f"process {os.getpid()}" in sentence
    assert "JOBFLOW_DATA" in sentence
    execute(urls.database_url, "SELECT 1")


def test_servers_left_behind_by_a_crash_are_replaced(make: Callable[..., Servers], data: Path) -> None:
    left = crash(data)
    servers = make()
    urls = servers.start()
    assert not any(map(is_running, left))
    assert not set(left) & set(pids(servers))
    execute(urls.database_url, "SELECT 1")


def test_clear_ends_what_a_crash_left_behind(make: Callable[..., Servers], data: Path) -> None:
    left = crash(data)
    make().clear()
    assert not any(map(is_running, left))


def test_the_number_of_a_dead_server_may_be_anybodys(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    servers.start()
    pid_file = data / "postgres" / "postmaster.pid"
    stale = pid_file.read_text().splitlines()
    for server in (servers.postgres, servers.valkey):
        assert server
        assert server.process
        server.process.kill()
    servers.stop()
    with subprocess.Popen(["sleep", "60"]) as other:
        # A process of the same user, or Postgres would see by itself that it cannot be its own.
        pid_file.write_text("\n".join([str(other.pid), *stale[1:]]) + "\n")
        (data / "valkey" / "pid").write_text(f"{other.pid}\n")
        make().start()
        assert other.poll() is None
        other.kill()


def test_another_port_is_chosen_when_ours_is_taken(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    before = servers.start()
    servers.stop()
    taken = [socket.create_server(("127.0.0.1", urlsplit(url).port or 0)) for url in before]
    try:
        after = make().start()
    finally:
        for listener in taken:
            listener.close()
    assert not {urlsplit(url).port for url in before} & {urlsplit(url).port for url in after}
    execute(after.database_url, "SELECT 1")


def test_a_port_that_is_taken_meanwhile_is_given_up(
    make: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answers = [taken.getsockname()[1]] * 2

        def too_late(remembered: Path) -> int:
            return answers.pop() if answers else free_port(remembered)

        monkeypatch.setattr("jobflow.embedded.process.free_port", too_late)
        urls = make().start()
    execute(urls.database_url, "SELECT 1")


def test_a_start_that_is_given_up_leaves_no_half_folder(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    with pytest.raises(Interrupted):
        servers.start(lambda sentence: servers.cancel())
    assert not (data / "postgres").exists()
    assert list(data.glob("postgres.new-*"))
    make().start()
    assert not list(data.glob("postgres.new-*"))


@pytest.mark.parametrize("pauses", [0, 1, 5, 20, 60])
def test_a_start_that_is_given_up_leaves_no_process(make: Callable[..., Servers], data: Path, pauses: int) -> None:
    servers = make()
    wait, left = servers._pause, [pauses]

    def pause() -> None:
        left[0] -= 1
        if left[0] < 0:
            servers.cancel()
        wait()

    servers._pause = pause  # type: ignore[method-assign]
    with suppress(Interrupted):  # a fast machine is ready before the last of the moments
        servers.start()
    servers.stop()
    assert children() == []
    urls = make().start()
    execute(urls.database_url, "SELECT 1")


def children() -> list[str]:
    """Command lines of our servers' processes below us that still run."""
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not own.exists():
        return []
    lines = [command_of(int(pid)) for pid in own.read_text().split() if is_running(int(pid))]
    return [line for line in lines if "a folder's data" in line]


def test_a_folder_of_another_major_version_is_left_alone(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    servers.start()
    servers.stop()
    (data / "postgres" / "PG_VERSION").write_text("9\n")
    sentence = fails(make())
    assert "made by PostgreSQL 9 " in sentence
    assert children() == []


def test_half_a_folder_is_told(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    servers.start()
    servers.stop()
    (data / "postgres" / "PG_VERSION").unlink()
    assert "not a whole PostgreSQL data folder" in fails(make())


def test_damage_is_told_in_one_sentence(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    servers.start()
    servers.stop()
    (data / "postgres" / "global" / "pg_control").write_bytes(b"nonsense")
    sentence = fails(make())
    assert sentence.startswith("PostgreSQL does not start")
    assert str(data / "postgres.log") in sentence


def test_a_folder_with_other_things_in_it_is_left_alone(make: Callable[..., Servers], data: Path) -> None:
    data.mkdir(mode=0o755)
    (data / "letter.txt").touch()
    assert "JOBFLOW_DATA" in fails(make())
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    assert [file.name for file in data.iterdir()] == ["letter.txt"]


def test_a_folder_that_cannot_be_made_is_told(make: Callable[..., Servers], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = fails(make(tmp_path / "file" / "data"))
    assert "Not a directory" in sentence
    assert "JOBFLOW_DATA" in sentence


def test_a_full_disk_is_told(make: Callable[..., Servers], data: Path) -> None:
    data.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", data], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        sentence = fails(make())
    finally:
        subprocess.run(["umount", data], check=True)
    assert "No space left on device" in sentence or "free disk space" in sentence


def test_a_lost_password_is_replaced(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    before = servers.start()
    execute(before.database_url, "CREATE TABLE kept ()")
    servers.stop()
    (data / "password").unlink()
    after = make().start()
    assert urlsplit(before.database_url).password != urlsplit(after.database_url).password
    execute(after.database_url, "TABLE kept")
    execute(admin_url(after.database_url), "SELECT 1")


def test_a_broken_copy_in_valkey_is_set_aside(make: Callable[..., Servers], data: Path) -> None:
    servers = make()
    servers.start()
    servers.stop()
    for file in (data / "valkey" / "appendonlydir").glob("*.aof"):
        file.write_text("nonsense" * 1000)
    said: list[str] = []
    with redis.Redis.from_url(make().start(said.append).redis_url) as client:
        assert client.dbsize() == 0
    assert len(said) == 1
    assert (data / "valkey.broken").is_dir()


def test_a_server_that_does_not_end_is_killed(make: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch) -> None:
    servers = make()
    servers.start()
    running = pids(servers)
    for server in (servers.postgres, servers.valkey):
        monkeypatch.setattr(type(server), "endings", ((signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)))
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    servers.stop()
    assert not any(map(is_running, running))


def test_servers_that_are_given_are_not_started(make: Callable[..., Servers], data: Path) -> None:
    given = {"database_url": "postgresql://db/jobflow", "redis_url": "redis://cache"}
    assert make(**given).start() == Urls(**given)
    assert not data.exists()
    urls = make(database_url=given["database_url"]).start()
    assert urls.database_url == given["database_url"]
    assert not (data / "postgres").exists()
    with redis.Redis.from_url(urls.redis_url) as client:
        assert client.ping()


def test_what_is_missing_is_told_before_anything_starts(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(programs, "_postgres_folders", lambda: iter(()))
    sentence = fails(Servers(data))
    assert "install it" in sentence
    assert "DATABASE_URL" in sentence
    monkeypatch.setenv("PATH", str(tmp_path))
    sentence = fails(Servers(data, database_url="postgresql://db/jobflow"))
    assert "install it" in sentence
    assert "REDIS_URL" in sentence


def test_programs_on_the_path_are_used_where_no_wheel_is(
    make: Callable[..., Servers], data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in (
        programs.find_postgres(chosen()["postgres"])[0] / "postgres",
        programs.find_redis(chosen()["redis"]),
    ):
        (folder / program.name).symlink_to(program)
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    servers = Servers(data, durable=False)
    try:
        execute(servers.start().database_url, "SELECT 1")
    finally:
        servers.stop()


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_old_programs_are_refused(name: str, data: Path, tmp_path: Path) -> None:
    for program in ("postgres", "initdb", "redis-server"):
        (tmp_path / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 6.2.1'\n")
        (tmp_path / program).chmod(0o755)
    override = {"postgres": tmp_path, "redis": tmp_path / "redis-server"}[name]
    assert "was not found" in fails(Servers(data, **{**chosen(), name: override}))  # type: ignore[arg-type]


@needs_root
@pytest.mark.parametrize("number", [0, 1])
def test_root_becomes_somebody_else(
    make: Callable[..., Servers], data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    accounts, modes = Path("/etc/passwd").read_bytes(), [folder.stat() for folder in (home, *home.parents)]
    one = account.SUBSTITUTES[number]
    monkeypatch.setattr(account, "SUBSTITUTES", (one,))
    try:
        urls = make(home / "data").start()
    except EmbeddedError as error:
        pytest.skip(f"not in this container: {error}")
    execute(urls.database_url, "SELECT 1")
    assert accounts == Path("/etc/passwd").read_bytes()
    for before, folder in zip(modes, (home, *home.parents), strict=True):
        after = folder.stat()
        assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)


@needs_root
def test_the_substitute_may_change_between_two_runs(
    make: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch
) -> None:
    substitutes = account.SUBSTITUTES
    try:
        for one in (*substitutes, *substitutes):
            monkeypatch.setattr(account, "SUBSTITUTES", (one,))
            servers = make()
            execute(servers.start().database_url, "SELECT 1")
            servers.stop()
    except EmbeddedError as error:
        pytest.skip(f"not in this container: {error}")


@needs_root
def test_root_without_a_substitute_is_told(make: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = account.Account(prefix=("false",), owner=account.NOBODY)
    missing = account.Account(prefix=("no-such-program",))
    monkeypatch.setattr(account, "SUBSTITUTES", (nothing, missing))
    sentence = fails(make())
    assert "util-linux" in sentence
    assert "DATABASE_URL" in sentence


@needs_root
def test_an_ordinary_user_needs_no_tricks() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from jobflow.embedded import Servers
with tempfile.TemporaryDirectory() as folder:
    servers = Servers(Path(folder) / "data", durable=False)
    servers.start()
    servers.stop()
"""
    somebody = account.SUBSTITUTES[0].prefix  # who may enter a home folder that is closed to others
    if subprocess.run([*somebody, "true"], check=False, capture_output=True).returncode:
        pytest.skip("not in this container")
    subprocess.run([*somebody, sys.executable, "-c", code], check=True)


def test_two_runs_at_once_have_their_own(make: Callable[..., Servers], tmp_path: Path) -> None:
    async def both() -> list[Urls]:
        return await asyncio.gather(*(asyncio.to_thread(make(tmp_path / name).start) for name in ("one", "two")))

    one, two = asyncio.run(both())
    assert len({urlsplit(url).port for url in (*one, *two)}) == 4


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "2025 [1] LOG: starting\n2025 [1] FATAL:  could not write: No space left\nDETAIL: x\n",
            "could not write: No space left.",
        ),
        ("initdb: error: could not create directory\n", "could not create directory."),
        (
            "setpriv: apply bounding set: Operation not permitted\n",
            "setpriv: apply bounding set: Operation not permitted.",
        ),
        ("7:M 24 Nov 2026 10:00:00.123 * Ready\n7:M 24 Nov 2026 10:00:00.124 # Bad file format\n", "Bad file format."),
        ("", "it said nothing."),
    ],
)
def test_the_first_error_of_a_log(output: str, expected: str) -> None:
    assert expected == first_error(output)


def test_the_folder_stays_small(make: Callable[..., Servers], data: Path) -> None:
    make().start()
    assert sum(file.stat().st_size for file in data.rglob("*") if file.is_file()) < 60_000_000
