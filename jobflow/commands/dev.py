"""`jobflow dev`: everything on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from jobflow.commands.common import address, read_settings, say
from jobflow.errors import SettingsError
from jobflow.settings import Settings

if TYPE_CHECKING:
    from jobflow.embedded import Servers


@click.command(short_help="Run everything on this machine, servers included.")
@click.option("--port", type=int, help="Port to listen on.  [default: PORT, else 8000]")
@click.option("--host", help="Loopback address to listen on.  [default: JOBFLOW_HOST, else 127.0.0.1]")
@click.option("--reload", is_flag=True, help="Start the application again when a file changes.")
@click.option("--fd", "descriptors", type=int, multiple=True, hidden=True, help="Sockets that --reload hands down.")
def dev(port: int | None, host: str | None, reload: bool, descriptors: tuple[int, ...]) -> None:
    """Run Jobflow on this machine, with private servers where none are given.

    PostgreSQL and Valkey are started for whichever of DATABASE_URL and REDIS_URL is not set, keep their data in
    the folder JOBFLOW_DATA (.jobflow), and are stopped together with the application. Only this machine can
    reach them.

    \b
    Examples:
      jobflow dev
      jobflow dev --port 8001 --reload
      JOBFLOW_HANDLERS=myapp.jobs jobflow dev
    """
    from jobflow.embedded import Interrupted, Servers
    from jobflow.serving import Stop, listening, serve_and_reload, serve_app

    settings = read_settings(PORT=port, JOBFLOW_HOST=host)
    if not settings.loopback:
        raise SettingsError(
            f"`jobflow dev` is for this machine alone and {settings.host} can be reached by others: leave "
            "JOBFLOW_HOST out, or use `jobflow serve`."
        )
    stop = Stop()
    servers = Servers(
        Path(settings.data).expanduser(), database_url=settings.database_url, redis_url=settings.redis_url
    )
    with stop.listening(servers.cancel), listening(settings, descriptors) as sockets:
        try:
            urls = servers.start(say)
            settings = msgspec.structs.replace(settings, database_url=urls.database_url, redis_url=urls.redis_url)
            if reload:
                serve_and_reload(settings, sockets, stop)
            else:
                serve_app(settings, sockets, stop, lambda: say(welcome(settings, servers)))
        except Interrupted:
            pass  # Ctrl-C or SIGTERM while the servers started
        finally:
            servers.stop()


def welcome(settings: Settings, servers: Servers) -> str:
    here = address(settings)
    data = "" if all(servers.given) else f"\n  Data       {servers.data}"
    return f"""
Jobflow is ready.

  Dashboard  {here}/dashboard
  API        {here}/jobs
  API docs   {here}/docs{data}

Ctrl-C stops it.
"""
