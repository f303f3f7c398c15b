"""The command line: which commands there are, and how they refuse. Each has its module in ``commands``."""

from __future__ import annotations

import sys
from typing import Any

import click

from jobflow import __version__
from jobflow.commands.dev import dev
from jobflow.commands.doctor import doctor
from jobflow.commands.enqueue import enqueue
from jobflow.commands.jobs import jobs
from jobflow.commands.migrate import migrate
from jobflow.commands.serve import serve
from jobflow.errors import JobflowError


class Group(click.Group):
    """Refuses with a sentence on stderr and status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        result, status = None, 0
        try:
            result = super().invoke(ctx)
        except JobflowError as error:
            click.ClickException(str(error)).show()
            status = 2
        if serving := sys.modules.get("jobflow.serving"):  # handlers may still be at work in threads
            serving.leave(status)
        if status:
            ctx.exit(status)
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order below


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
      jobflow enqueue email.send '{"to": "user@example.com"}'
      jobflow jobs --status failed
      jobflow COMMAND --help           more about one command
    """


for command in (dev, serve, migrate, doctor, enqueue, jobs):
    main.add_command(command)
