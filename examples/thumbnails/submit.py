"""Submits a job for all pictures and follows it to its end: python -m examples.thumbnails.submit --help"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import click
import httpx

from examples.thumbnails import pictures

LAST = ("completed", "dead_letter", "cancelled")
AGAIN = (409, 429, 503)  # the key is in flight, too many requests, Postgres is away


def submit(http: httpx.Client, job: dict[str, Any], tries: int = 10) -> dict[str, Any]:
    """The job, as it is when it has ended or after 20 seconds.

    Sent again until there is an answer, always with the same key: however often it arrives, there is one job.
    """
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Prefer": "wait=20"}
    for left in range(tries - 1, -1, -1):
        pause = 1.0
        try:
            answer = http.post("/jobs", json=job, headers=headers)
        except httpx.TransportError:
            if not left:
                raise
        else:
            if answer.status_code not in AGAIN or not left:
                return dict(answer.raise_for_status().json())
            pause = float(answer.headers.get("Retry-After", pause))
        time.sleep(pause)
    raise AssertionError("unreachable")


def follow(http: httpx.Client, tag: str) -> list[dict[str, Any]]:
    """The jobs with this tag (200 at most), when all of them have ended."""
    while True:
        jobs: list[dict[str, Any]] = (
            http.get("/jobs", params={"tag": tag, "limit": 200}).raise_for_status().json()["items"]
        )
        running = [job for job in jobs if job["status"] not in LAST]
        if not running:
            return jobs
        http.get(f"/jobs/{running[0]['id']}", params={"wait": 10})  # until it changes


@click.command()
@click.option("--url", default="http://localhost:8000", show_default=True, help="The server.")
@click.option("--width", default=64, show_default=True, help="Of the small pictures.")
@click.option("--paint", type=click.Path(path_type=Path), help="First paint a picture into this folder.")
def main(url: str, width: int, paint: Path | None) -> None:
    """Make thumbnails of all pictures."""
    if paint:
        paint.mkdir(parents=True, exist_ok=True)
        (paint / "sky.ppm").write_bytes(pictures.write(pictures.paint()))
    with httpx.Client(base_url=url, timeout=40) as http:
        job = submit(http, {"type": "thumbnail.all", "payload": {"width": width}})
        click.echo(f"{job['status']}: {job['result'] or job['cancel_reason'] or job['error']}")
        for one in follow(http, f"of:{job['id']}"):
            click.echo(f"  {one['status']}: {one['payload']['name']} {one['result'] or one['error']}")


if __name__ == "__main__":
    main()
