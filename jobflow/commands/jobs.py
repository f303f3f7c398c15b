"""`jobflow jobs`: what is there on a running server, and one job in full."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click

from jobflow.commands.common import say
from jobflow.commands.remote import Remote, url_option
from jobflow.commands.table import ago, clean, clean_block, now, show, show_json, status, table
from jobflow.lifecycle import UNFINISHED_BY_TIME, Status

HEADS = ("ID", "STATUS", "TYPE", "QUEUE", "ATTEMPT", "CREATED", "NOTE")
STATUS = 1  # the column
ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@click.command(short_help="List jobs, or show one.")
@click.argument("id", required=False)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="May be given several times.",
)
@click.option("--type", help="Of this type.")
@click.option("--queue", help="In this queue.")
@click.option("--tag", help="With this tag.")
@click.option("--limit", type=int, help="At most so many, 200 or less.  [default: 50]")
@click.option("--cursor", help="Go on where the last list ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@url_option
def jobs(id: str | None, as_json: bool, url: str | None, **filters: Any) -> None:
    """List the jobs of a running server, newest first; with an ID, show that one in full.

    \b
    Examples:
      jobflow jobs --status failed --status dead_letter
      jobflow jobs --type email.send --tag nightly --limit 200
      jobflow jobs 0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60
      jobflow jobs --json | jq -r '.items[].id'
    """
    wanted = {name: value for name, value in filters.items() if value not in (None, ())}
    if id is not None and wanted:
        raise click.UsageError("An ID names one job: leave the filters out.")
    if id is not None and not ID.fullmatch(id):
        raise click.BadParameter("an id is a UUID, such as 0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60.", param_hint="ID")
    with Remote(url) as remote:
        found = remote.get("/jobs", wanted) if id is None else remote.get(f"/jobs/{id}")
    if as_json:
        show_json(found)
    elif id is not None:
        show(describe(found))
    else:
        if rows := [row(job) for job in found["items"]]:
            show(table(HEADS, rows, STATUS))
        say(footer(found))


def row(job: Any) -> list[str]:
    attempt = f"{job['attempt']}/{job['max_attempts']}"
    cells = [job["id"], job["status"], job["type"], job["queue"], attempt, ago(job["created_at"], now()), note(job)]
    return [clean(cell) for cell in cells]


def note(job: Any) -> str:
    """What the status alone does not say."""
    due = ""
    if job["status"] in UNFINISHED_BY_TIME:
        when = ago(job["run_at"], now())
        due = when if when.startswith("in ") else "due"
    error = f"{job['error']['type']}: {job['error']['message']}" if job["error"] else ""
    return "; ".join(part for part in (due, job["cancel_reason"], error) if part)


def footer(page: Any) -> str:
    total = f"{page['total']:,}{'+' if page.get('total_capped') else ''}"
    shown = f"{len(page['items']):,} of {total} jobs." if page["items"] else "No such jobs."
    return f"{shown} More: add --cursor {page['next_cursor']}" if page.get("next_cursor") else shown


def describe(job: Any) -> str:
    """One job with everything that is set, its history and its data."""
    return "\n".join([*_facts(job), *_attempts(job), *_data(job)])


def _facts(job: Any) -> Iterator[str]:
    moments = ("created_at", "run_at", "started_at", "finished_at", "expires_at")
    facts = {"id": job["id"], "status": job["status"], "type": job["type"], "queue": job["queue"]}
    facts |= {"priority": job["priority"], "attempt": f"{job['attempt']} of {job['max_attempts']}"}
    facts |= {name: f"{job[name]}  ({ago(job[name], now())})" for name in moments if job[name]}
    facts |= {name: job[name] for name in ("timeout", "rescues", "unique_key", "worker", "cancel_reason") if job[name]}
    if job["tags"]:
        facts["tags"] = ", ".join(job["tags"])
    if job["cancel_requested"]:
        facts["cancel_requested"] = "yes"
    for name, value in facts.items():
        yield f"{click.style(name.ljust(16), bold=True)}  {status(value) if name == 'status' else clean(value)}"


def _attempts(job: Any) -> Iterator[str]:
    for attempt in job.get("attempts", ()):
        error = attempt["error"]
        said = f"  {error['type']}: {error['message']}" if error else ""
        yield f"\n{click.style('run', bold=True)} {attempt['number']}  {clean(attempt['outcome'] + said)}"
        yield f"  {attempt['started_at'] or '…'} to {attempt['finished_at'] or '…'}  on {attempt['worker'] or 'no worker'}"
        if attempt["traceback"]:
            yield clean_block(attempt["traceback"])


def _data(job: Any) -> Iterator[str]:
    for name in ("payload", "result"):
        if job[name] is not None:
            yield f"\n{click.style(name, bold=True)}\n{json.dumps(job[name], indent=2)}"  # which escapes what is not ASCII
