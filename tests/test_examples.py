"""The examples work as their README says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.support.process import processes

ROOT = Path(__file__).parent.parent


def python(*arguments: str) -> str:
    """What a command in the checkout says. In a process of its own: importing handlers registers them."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_their_own_tests_pass() -> None:
    assert "passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/thumbnails")


async def test_thumbnails_are_made(database_url: str, redis_url: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    with processes(tmp_path, database_url, redis_url) as started:
        settings = {"JOBFLOW_HANDLERS": "examples.thumbnails.handlers", "PHOTOS": str(photos)}
        server = await started.start(**settings).ready()
        said = await asyncio.to_thread(
            python, "-m", "examples.thumbnails.submit", "--url", server.url, "--paint", str(photos)
        )

    assert said.splitlines() == [
        "completed: {'submitted': 1}",
        "  completed: sky {'file': 'sky-small.ppm', 'width': 64, 'height': 48}",
    ]
    assert (photos / "sky-small.ppm").read_bytes().startswith(b"P6 64 48 255\n")
