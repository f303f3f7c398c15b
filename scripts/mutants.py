"""Takes one guard at a time out of a copy of Jobflow and shows that the test named for it turns red.

A test that stays green without its guard protects nothing. The list is scripts/mutants.toml; run it as ./dev mutants.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".toml")
NOT_COPIED = (".*", "node_modules")
LIMIT = 90.0  # seconds for one test
AT_ONCE = 2

EXAMPLES = """\
examples:
  ./dev mutants                          all of them, a few minutes
  ./dev mutants --sample 8 --seed 20     eight, others for another seed
  ./dev mutants --only "fence: epoch"    those whose name contains this
"""


@dataclass(frozen=True)
class Mutant:
    """A guard taken out: ``old`` stands in ``file`` exactly once and is replaced by ``new``; then ``test`` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str  # as pytest names it

    def apply(self, text: str) -> str:
        """The file's text without the guard. Raises ValueError: the list is no longer true."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} has the text {count} times instead of once: {self.old!r}")
        if self.old == self.new:
            raise ValueError(f"{self.name}: nothing is changed.")
        return text.replace(self.old, self.new)


def read_mutants() -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(LIST.read_text("utf-8"))["mutant"]]


class Copy:
    """A tree of its own to break."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        # With the times of the files, so that what Python compiled before still counts.
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        self._environ = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        where = self._python("-c", "import jobflow; print(jobflow.__file__)").communicate(timeout=30)[0]
        if not Path(where.strip()).is_relative_to(folder):
            raise RuntimeError(f"Tests in the copy would import {where.strip()}, not the copy.")

    def judge(self, mutant: Mutant) -> tuple[str, str]:
        """(verdict, what pytest said): ``red`` if the test fails, ``GREEN`` if it passes, else ``BROKEN``."""
        path = self.root / mutant.file
        path.write_text(mutant.apply(path.read_text("utf-8")), "utf-8")
        try:
            process = self._python("-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", mutant.test)
            try:
                said = process.communicate(timeout=LIMIT)[0]
            except subprocess.TimeoutExpired:
                return "BROKEN", f"no end within {LIMIT:g} s\n{self._end(process)}"
        finally:
            shutil.copy2(ROOT / mutant.file, path)
        if re.search(r"(?m)^\d+ failed", said):  # an error in a fixture or while collecting is no proof
            return "red", said
        return "GREEN" if process.returncode == 0 and re.search(r"(?m)^\d+ passed", said) else "BROKEN", said

    def _python(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.root, env=self._environ, text=True, encoding="utf-8", errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _end(self, process: subprocess.Popen[str]) -> str:
        """By a signal that lets it stop its servers, and then by one that does not ask."""
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=15)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[0]


def run(mutants: list[Mutant], *, verbose: bool) -> int:
    """Judge them, AT_ONCE at a time, and print a table. Returns how many were not red."""
    wide, far = max(len(m.name) for m in mutants), max(len(m.test) for m in mutants)
    print(f"{'guard taken out':{wide}} | {'test':{far}} | verdict | seconds")
    bad = []
    with tempfile.TemporaryDirectory(prefix="jobflow-mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as threads:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(min(AT_ONCE, len(mutants))):
            copies.put(Copy(Path(folder) / str(number)))

        def judge(mutant: Mutant) -> tuple[Mutant, str, str, float]:
            copy = copies.get()
            began = time.monotonic()
            try:
                return mutant, *copy.judge(mutant), time.monotonic() - began
            finally:
                copies.put(copy)

        for done in as_completed([threads.submit(judge, mutant) for mutant in mutants]):
            mutant, verdict, said, seconds = done.result()
            print(f"{mutant.name:{wide}} | {mutant.test:{far}} | {verdict:7} | {seconds:6.1f}", flush=True)
            if verdict != "red":
                bad.append(mutant.name)
            if verbose or verdict == "BROKEN":
                print(re.sub(r"(?m)^", "    ", said[-6_000:]))
    print(f"{len(mutants) - len(bad)} of {len(mutants)} red.", *(f"Not red: {name}." for name in bad), sep="\n")
    return len(bad)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./dev mutants", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="show them and run none")
    parser.add_argument("--only", action="append", metavar="NAME", help="those whose name contains NAME (repeatable)")
    parser.add_argument("--sample", type=int, metavar="N", help="N of them by chance")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which chance (default: 0)")
    parser.add_argument("--verbose", action="store_true", help="show what pytest said of each")
    options = parser.parse_args()
    mutants = [m for m in read_mutants() if any(part in m.name for part in options.only or [""])]
    if options.sample is not None:
        mutants = random.Random(options.seed).sample(mutants, min(max(options.sample, 1), len(mutants)))
    if not mutants:
        parser.error(f"no name contains {' or '.join(map(repr, options.only))}")
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {mutant.file} → {mutant.test}")
        return
    try:
        sys.exit(1 if run(mutants, verbose=options.verbose) else 0)
    except ValueError as error:  # a text that is not there, or not once
        sys.exit(str(error))


if __name__ == "__main__":
    main()
