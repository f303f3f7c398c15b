"""The wheel holds everything that runs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
RESOURCES = ("templates", "static", "migrations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    """Built by the backend itself: no network, no environment of its own."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=180)
    with ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    return HeaderParser().parsestr(wheel.read(only(wheel, ".dist-info/METADATA")).decode())


def only(wheel: ZipFile, ending: str) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(ending)]
    return name


def files(folder: str) -> set[str]:
    """What has to be there of a folder of the checkout, by its name inside of it."""
    return {
        str(path.relative_to(ROOT / folder))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_travels_and_no_other(wheel: ZipFile) -> None:
    wanted = {f"jobflow/{name}" for name in files("jobflow")}
    wanted |= {f"jobflow/{folder}/{name}" for folder in RESOURCES for name in files(folder)}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted
    for name in ("sql/claim_jobs.sql", "lua/pop.lua", "migrations/env.py", "py.typed"):
        assert f"jobflow/{name}" in wanted


def test_files_are_those_of_the_checkout(wheel: ZipFile) -> None:
    for folder in RESOURCES:
        for name in files(folder):
            assert wheel.read(f"jobflow/{folder}/{name}") == (ROOT / folder / name).read_bytes()


def test_the_command_is_there(wheel: ZipFile) -> None:
    assert b"jobflow = jobflow.cli:main" in wheel.read(only(wheel, ".dist-info/entry_points.txt"))


def test_servers_come_only_with_their_extra(metadata: Message) -> None:
    assert metadata["Name"] == "jobflow-server"
    assert metadata.get_all("Provides-Extra") == ["embedded"]
    embedded = [line for line in metadata.get_all("Requires-Dist", []) if line.startswith(("embedded", "valkey"))]
    assert len(embedded) == 2
    assert all("extra == 'embedded'" in line for line in embedded)
