"""`jobflow serve`: on servers that are there already."""

from __future__ import annotations

import click

from jobflow.commands.common import address, need, read_settings, say
from jobflow.settings import check_exposure


@click.command(short_help="Run on a PostgreSQL and a Redis that are there.")
@click.option("--port", type=int, help="Port to listen on.  [default: PORT, else 8000]")
@click.option("--host", help="Address to listen on.  [default: JOBFLOW_HOST, else 127.0.0.1]")
def serve(port: int | None, host: str | None) -> None:
    """Run Jobflow on the PostgreSQL and Redis that DATABASE_URL and REDIS_URL name.

    An address that others can reach needs JOBFLOW_ADMIN_TOKEN, or JOBFLOW_AUTH=off if something else guards it.
    SIGTERM and Ctrl-C let running jobs finish for JOBFLOW_GRACE seconds and hand the others back.

    \b
    Example:
      DATABASE_URL=postgresql://jobflow:secret@db/jobflow REDIS_URL=redis://cache:6379/0 jobflow serve
    """
    from jobflow.serving import Stop, listening, serve_app

    settings = read_settings(PORT=port, JOBFLOW_HOST=host)
    check_exposure(settings)
    need(settings.database_url, "DATABASE_URL")
    need(settings.redis_url, "REDIS_URL")
    ready = f"Jobflow is ready on {address(settings)}"
    stop = Stop()
    with stop.listening(), listening(settings) as sockets:
        serve_app(settings, sockets, stop, lambda: say(ready))
