"""Brings a peer into a folder of the run, by the ordinary package managers; nothing of it stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_NODE = 20
NODE = (
    f"Node.js {OLDEST_NODE} or newer with npm (Debian and Ubuntu: apt-get install nodejs npm; macOS: brew install node)"
)


def install_python(folder: Path, *requirements: str) -> None:
    """Into a folder for PYTHONPATH. Raises SystemExit: it could not be installed; pip has said why."""
    options = ["install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input", "--target", str(folder)]
    _run([*_pip(), *options, *requirements])


def install_node(folder: Path, *packages: str) -> None:
    """Into ``folder/node_modules``. Raises SystemExit: without Node.js, or npm has said why not."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm) or _major(node) < OLDEST_NODE:
        raise SystemExit(f"This peer needs {NODE}.")
    folder.mkdir(parents=True, exist_ok=True)
    _run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *packages])


def _pip() -> list[str]:
    """A pip that installs for this Python: its own, or one outside, since Debian's environments may have none."""
    for pip in ([sys.executable, "-m", "pip"], ["python3", "-m", "pip", "--python", sys.executable]):
        if not subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
            return pip
    raise SystemExit(
        "This peer needs pip (Debian and Ubuntu: apt-get install python3-pip; else: python3 -m ensurepip)."
    )


def _major(node: str) -> int:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return int(done.stdout.strip().removeprefix("v").partition(".")[0] or 0)


def _run(command: list[str]) -> None:
    if code := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"{' '.join(command)} failed with {code}")
