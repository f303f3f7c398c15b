"""The command line: what people may type, and what is started in which order."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import msgspec
from dotenv import dotenv_values

from jobflow import __version__
from jobflow.embedded import Interrupted, Servers
from jobflow.errors import JobflowError, SettingsError
from jobflow.serving import Stop, listening, serve_and_reload, serve_app
from jobflow.settings import Settings, check_exposure, load


class Refused(click.ClickException):
    """One sentence on stderr and status 2."""

    exit_code = 2


class Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JobflowError as error:
            raise Refused(str(error)) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobflow")
def main() -> None:
    """Background jobs over REST: submit work, see it run, never lose it.

    Settings come from the environment, and from the file .env in the working folder for what the environment
    leaves out. The file .env.example lists every one.

    \b
    Examples:
      jobflow dev                      try it: brings its own PostgreSQL and Valkey
      PORT=8001 jobflow dev            the same on another port
      jobflow serve                    run it on the servers of DATABASE_URL and REDIS_URL
      jobflow COMMAND --help           more about one command
    """


@main.command()
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


@main.command()
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
    settings = read_settings(PORT=port, JOBFLOW_HOST=host)
    check_exposure(settings)
    need(settings.database_url, "DATABASE_URL")
    need(settings.redis_url, "REDIS_URL")
    stop = Stop()
    with stop.listening(), listening(settings) as sockets:
        serve_app(settings, sockets, stop, lambda: say(f"Jobflow is ready on {address(settings)}"))


@main.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to this version's schema. `dev` and `serve` do it when they start.

    \b
    Example:
      DATABASE_URL=postgresql://jobflow:secret@db/jobflow jobflow migrate
    """
    from jobflow.migrate import upgrade

    settings = read_settings()
    need(settings.database_url, "DATABASE_URL")
    asyncio.run(upgrade(settings.database_url))
    say("The schema is up to date.")


def say(sentence: str) -> None:
    """Tell the person at the terminal; standard output belongs to the log."""
    click.echo(sentence, err=True)


def need(url: str, name: str) -> None:
    if not url:
        raise SettingsError(f"{name} is not set: name the server to use, or run `jobflow dev`, which brings its own.")


def read_settings(**given: object) -> Settings:
    """Settings from ``given`` (by name in the environment; None: not given), the environment, the file .env."""
    try:
        lines = dotenv_values(".env")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file .env cannot be read: {error}.") from error
    environ = {name: value for name, value in lines.items() if value is not None} | os.environ
    return load(environ | {name: str(value) for name, value in given.items() if value is not None})


def address(settings: Settings) -> str:
    host = "localhost" if settings.loopback else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


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
