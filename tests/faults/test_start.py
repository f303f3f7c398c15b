"""Many start at once, one dies while it migrates, old and new versions meet: the schema is whole, and everybody knows it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from jobflow.migrate import head
from jobflow.pool import Connection
from tests.faults.conftest import Load
from tests.support import oracle
from tests.support.process import ROOT, Process, Processes, processes
from tests.support.servers import ask

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
DYING = """
import os, signal, sqlalchemy
def die(connection, cursor, statement, *more):
    if "CREATE TABLE jobs_done" in " ".join(statement.split()):
        os.kill(os.getpid(), signal.SIGKILL)
sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", die)
"""


@pytest.fixture
def first(empty_url: str, tmp_path: Path, redis_url: str) -> Iterator[Processes]:
    """Processes on that database."""
    with processes(tmp_path, empty_url, redis_url) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("time", range(5))
async def test_r20_five_start_at_once_on_an_empty_database(time: int, first: Processes) -> None:
    """Each with as few connections as it may have."""
    all = [first.start(JOBFLOW_POOL_SIZE="14", JOBFLOW_REDIS_POOL_SIZE="6") for _ in range(5)]
    await asyncio.gather(*(process.ready(seconds=60) for process in all))
    assert await ask(first.database_url, "SELECT version_num FROM alembic_version") == [head()]
    assert await ask(first.database_url, "SELECT count(*) FROM workers WHERE state = 'alive'") == [5]


async def test_r21_killed_in_the_middle_of_a_migration(first: Processes) -> None:
    """No half step is left; the next ones make the whole; and what a newer version has made is left alone."""
    assert await first.start(DYING).ended() == -9
    assert await ask(first.database_url, TABLES) == [0]
    both = [first.start(), first.start()]
    for process in both:
        await process.ready()
    assert await ask(first.database_url, "SELECT version_num FROM alembic_version") == [head()]
    await ask(first.database_url, "UPDATE alembic_version SET version_num = '9999' RETURNING 1")
    older = first.start()
    assert await older.ended() == 2
    assert re.search(r"schema 9999.* newer version", older.said())
    assert "Traceback" not in older.said()
    assert await ask(first.database_url, "SELECT version_num FROM alembic_version") == ["9999"]
    assert [process.process.poll() for process in both] == [None, None], "who runs already goes on"


# --- this version beside the one before ---


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last commit's checkout; the one before it, when nothing has changed since."""
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode == 1
    archive = subprocess.run(
        ["git", "archive", "HEAD" if changed else "HEAD~1"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip("this is not a clone with a commit before this one")
    folder = tmp_path_factory.mktemp("previous")
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def migrations(root: Path) -> set[str]:
    return {path.name for path in (root / "migrations" / "versions").glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("older_first", [True, False], ids=["the older first", "the newer first"])
async def test_r51_this_version_and_the_previous_one_side_by_side(
    older_first: bool, previous: Path, first: Processes, load_later: Load
) -> None:
    same = migrations(previous) == migrations(ROOT)

    def older() -> Process:
        return first.start(root=previous)

    if older_first:
        old = await older().ready()
        new = await first.start().ready()
    else:
        new = await first.start().ready()
        old = older()
        if not same:
            assert await old.ended() == 2
            assert "newer version" in old.said()
            return
        await old.ready()
    load = load_later
    await oracle.install(load.database)
    for process in (old, new):
        await load.mixed(process, 300)
    await load.finished()
    who = "SELECT count(DISTINCT locked_by) FROM jobs_done WHERE id = ANY ($1)"
    assert await load.database.fetchval(who, load.acknowledged) == 2
    old.kill()
    await load.bulk(new, [load.job(seconds=0.05) for _ in range(100)])
    await load.finished(seconds=10)


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(empty_url, ssl=False)
    yield connection
    await connection.close()
