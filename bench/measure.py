"""``python -m bench``: every scenario in turns, the ceilings in the same run, and a table with the bars.

Ratios count: two numbers from different runs or machines cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench import growth, markdown, mixed, reads
from bench.figures import Figures, spread, steadiness
from bench.growth import Pairs
from bench.machine import Machine, machine
from bench.peers import run as peers
from bench.report import capacity, document, growth_table, short, table
from bench.scenarios import Scenario, scenarios

PAIRS = 7
WIDTH = 160  # columns, when it is not a terminal


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="also with millions of rows, at most an hour")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these; --list shows them")
    parser.add_argument("--list", action="store_true", help="show the names and do nothing")
    parser.add_argument("--peer", nargs="+", default=[], choices=(*peers.PEERS, "all"), help="another system beside it")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turns (default 3)")
    parser.add_argument("--jobs", type=int, default=60_000, help="jobs in one drain; the rest follows (default 60,000)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that count as a million (default 1,000,000)")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs for each state of --full (default {PAIRS})")
    parser.add_argument("--json", type=Path, help="write everything that was measured into this file")
    parser.add_argument(
        "--markdown", type=Path, help="write the tables into this file, as docs/performance.md has them"
    )
    parser.add_argument("--data", help="folder for the servers' data (default: the temporary folder)")


class Plan(NamedTuple):
    scenarios: list[Scenario]
    states: dict[str, growth.State]


def plan(args: argparse.Namespace) -> Plan:
    """What to measure. Raises SystemExit: a name is not known."""
    known = {scenario.name: scenario for scenario in scenarios(args.jobs)}
    states = growth.states(args.rows)
    if args.only:
        if unknown := set(args.only) - known.keys() - states.keys():
            raise SystemExit(f"There is no {', '.join(sorted(unknown))}. There are: {' '.join((*known, *states))}")
        wanted = [known[name] for name in known if name in args.only]
        return Plan(
            [*wanted, *peers.scenarios(args.peer, args.jobs)], {n: s for n, s in states.items() if n in args.only}
        )
    return Plan([*known.values(), *peers.scenarios(args.peer, args.jobs)], states if args.full else {})


def run(args: argparse.Namespace) -> None:
    wanted = plan(args)
    if args.list:
        print(*(scenario.name for scenario in scenarios(args.jobs)), sep="\n")
        print(*(f"{name} (--full)" for name in growth.states(args.rows)), sep="\n")
        return
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    began = time.monotonic()
    with machine(args.data) as machine_:
        Run(machine_, console, args).all_of(wanted)
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes")


class Run:
    """One run of the command."""

    def __init__(self, machine_: Machine, console: Console, args: argparse.Namespace) -> None:
        self._machine, self._console, self._args = machine_, console, args
        self._rounds: dict[str, list[Figures]] = {}
        self._steady: list[Figures] = []
        self._pairs: list[Pairs] = []
        self._tables: list[Table] = []

    def all_of(self, wanted: Plan) -> None:
        args = self._args
        self._console.print(f"{self._machine.describe()}\n{args.jobs:,} jobs, {args.rounds} rounds\n")
        peers.install(self._machine, args.peer)
        try:
            for number in range(args.rounds):
                for scenario in wanted.scenarios:
                    self._measure(scenario, number)
            if wanted.scenarios:
                self._show(table(wanted.scenarios, self._rounds), capacity(self._rounds))
            for name, state in wanted.states.items():
                self._pairs.append(self._compare(name, state))
            if self._pairs:
                self._show(growth_table(self._pairs))
            self._tell_steadiness()
        finally:  # an hour's work must not go with the last minute of it
            self._write(wanted)

    def _write(self, wanted: Plan) -> None:
        if file := self._args.json:
            made = document(self._machine, wanted.scenarios, self._rounds, self._pairs, self._steady)
            file.write_text(json.dumps(made, indent=1) + "\n")
        if file := self._args.markdown:
            file.write_text(markdown.page(self._machine.describe(), self._tables))

    def _show(self, *tables: Table | None) -> None:
        for each in filter(None, tables):
            self._console.print(each)
            self._tables.append(each)

    def _measure(self, scenario: Scenario, number: int) -> None:
        spin, sync = steadiness()
        self._steady.append({"spin": spin, "sync": sync})
        figures = scenario.run(self._machine, scenario.jobs)
        self._rounds.setdefault(scenario.name, []).append(figures)
        shown = "  ".join(f"{line.key} {short(figures[line.key])} {line.unit}" for line in scenario.lines)
        self._console.print(f"round {number + 1}: {scenario.name:9} {scenario.jobs:7,} jobs   {shown}")

    def _compare(self, name: str, state: growth.State) -> Pairs:
        def after(url: str) -> None:
            if name == "finished10":
                self._read(url, state.title)

        return growth.measure(self._machine, state, self._args.jobs, self._args.pairs, self._console.print, after)

    def _read(self, url: str, title: str) -> None:
        """Pages and API on a database that is full, with live jobs beside the finished ones."""
        live = self._args.rows // 10
        mixed.add_live(url, live)
        title += f", {live:,} live ones"
        self._show(reads.examine_lists(self._machine, url, requests=1_000, seed=1, title=title))
        self._show(reads.examine(self._machine, url, times=60, title=title))

    def _tell_steadiness(self) -> None:
        for key, what in (("spin", "a fixed piece of Python"), ("sync", "8 KB written and synced")):
            if self._steady:
                least, middle, most = spread(figures[key] for figures in self._steady)
                self._console.print(f"machine: {what} {least:.2f} / {middle:.2f} / {most:.2f} ms (min / median / max)")
