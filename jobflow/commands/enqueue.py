"""`jobflow enqueue`: submit a job to a running server."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from jobflow.commands.common import say
from jobflow.commands.jobs import describe
from jobflow.commands.remote import Away, Remote, url_option
from jobflow.commands.table import show, show_json
from jobflow.lifecycle import FINAL, Status

HOLD = 20  # seconds that the server may hold its answer; less than Remote waits for one
PAUSE = 1.0  # seconds until a server is asked again that does not hold it, or is away
PATIENCE = 60.0  # seconds that a server may be away while its job is waited for


@click.command(short_help="Submit a job.")
@click.argument("type")
@click.argument("payload", metavar="[JSON]", default="{}")
@click.option("--queue", help="Queue to put it into.  [default: the type's]")
@click.option("--priority", type=int, help="0 to 9, 0 runs first.  [default: the type's]")
@click.option("--delay", type=float, help="Seconds from now.")
@click.option("--run-at", help="Time with a zone, such as 2030-01-31T12:00:00Z.")
@click.option("--max-attempts", type=int, help="Runs at most, the first included.  [default: the type's]")
@click.option("--timeout", type=float, help="Seconds for one attempt.  [default: the type's]")
@click.option("--unique-key", help="At most one live job has this key.")
@click.option("--tag", "tags", multiple=True, help="May be given several times.")
@click.option("--idempotency-key", help="However often the command is run with it, there is one job.")
@click.option("--wait", is_flag=True, help="Wait for its end and show it; status 1 unless it is completed.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole job as JSON instead of its id.")
@url_option
def enqueue(
    type: str, payload: str, idempotency_key: str | None, wait: bool, as_json: bool, url: str | None, **fields: Any
) -> None:
    """Submit a job to a running server and print its id.

    JSON is the payload, an object; `-` reads it from standard input.

    \b
    Examples:
      jobflow enqueue email.send '{"to": "user@example.com", "subject": "Hello"}'
      jobflow enqueue report.generate --delay 60 --tag nightly --wait
      jobflow enqueue email.send - < payload.json
      id=$(jobflow enqueue email.send --idempotency-key order-17)
    """
    body = {"type": type, "payload": read_payload(payload)}
    body |= {name: value for name, value in fields.items() if value not in (None, ())}
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    with Remote(url) as remote:
        job, answered = remote.post("/jobs", msgspec.json.encode(body), headers)
        known = " It was submitted before." if answered.get("Idempotency-Replayed") else ""
        try:
            say(f"{job['type']} is {job['status']} in the queue {job['queue']}.{known}")
            if wait:
                job = wait_for(remote, job["id"])
        except KeyboardInterrupt:
            say(f"\nNot waiting any more; the job goes on: jobflow jobs {job['id']}")
            raise click.exceptions.Exit(130) from None  # 128 + SIGINT, as shells have it
    if as_json:
        show_json(job)
    else:
        show(describe(job) if wait else job["id"])
    if wait and job["status"] != Status.COMPLETED:
        raise click.exceptions.Exit(1)


def read_payload(given: str) -> msgspec.Raw:
    """The payload as it is written, for the server to judge. Raises BadParameter: it is no JSON at all."""
    text = sys.stdin.read() if given == "-" else given
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise click.BadParameter(
            f"""{error}. Quote it, as in '{{"to": "user@example.com"}}'.""", param_hint="JSON"
        ) from None
    return msgspec.Raw(text)


def wait_for(remote: Remote, id: str) -> Any:
    """The job once it has ended for good. Raises RemoteError: refused, or the server was away for a minute.

    The server holds each answer until the job changes. One that shuts down does not, and restarts are waited for.
    """
    seen: Any = None
    heard = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            job = remote.get(f"/jobs/{id}", {"wait": HOLD})
        except Away:
            if asked - heard > PATIENCE:
                raise
        else:
            if job["status"] in FINAL:
                return job
            heard = time.monotonic()
            if job["updated_at"] != seen or heard - asked > PAUSE:
                seen = job["updated_at"]
                continue
        time.sleep(PAUSE)
