"""`jobflow doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from jobflow.commands.common import read_settings, say
from jobflow.commands.table import clean, show, show_json
from jobflow.errors import SettingsError

if TYPE_CHECKING:
    from jobflow.doctor.finding import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(short_help="Say what is wrong, and what to do.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def doctor(as_json: bool) -> None:
    """Check settings, PostgreSQL, Redis, handlers and the port, and say what to do. Changes nothing.

    Without DATABASE_URL and REDIS_URL it looks at the servers of `jobflow dev` in this folder. The status is 1 when
    a check fails; warnings leave it 0.

    \b
    Examples:
      jobflow doctor
      jobflow doctor --json | jq '.checks[] | select(.level != "ok")'
    """
    from jobflow.doctor.examine import examine
    from jobflow.doctor.finding import fail

    try:
        findings = asyncio.run(examine(read_settings()))
    except SettingsError as error:
        findings = [fail("settings", str(error), "Mend that first; nothing else was checked.")]
    levels = [finding.level for finding in findings]
    if as_json:
        show_json({"ok": "fail" not in levels, "checks": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            show(line(finding))
        say(summary(levels.count("fail"), levels.count("warn")))
    if "fail" in levels:
        raise click.exceptions.Exit(1)


def line(finding: Finding) -> str:
    level = click.style(f"{finding.level:4}", fg=COLOURS[finding.level], bold=finding.level != "ok")
    advice = f"\n{'':20}→ {clean(finding.advice)}" if finding.advice else ""
    return f"{level}  {finding.name:12}  {clean(finding.text)}{advice}"


def summary(failed: int, warned: int) -> str:
    if failed:
        return f"{failed} to mend{f', {warned} to look at' if warned else ''}."
    return f"It works; {warned} to look at." if warned else "All is well."
