"""`jobflow migrate`: the schema, before the first process of a new version starts."""

from __future__ import annotations

import asyncio

import click

from jobflow.commands.common import need, read_settings, say


@click.command(short_help="Bring the schema up to date.")
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
