"""What several commands need: the settings, and a word to the person at the terminal."""

from __future__ import annotations

import os

import click
from dotenv import dotenv_values

from jobflow.errors import SettingsError
from jobflow.settings import Settings, load

ANY = {"0.0.0.0": "localhost", "::": "localhost", "[::]": "localhost"}  # noqa: S104  (who listens there is here, too)


def say(sentence: str) -> None:
    """Tell the person at the terminal; standard output belongs to what a script reads."""
    click.echo(sentence, err=True)


def read_settings(**given: object) -> Settings:
    """Settings from ``given`` (by name in the environment; None: not given), the environment, the file .env."""
    try:
        lines = dotenv_values(".env")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file .env cannot be read: {error}.") from error
    environ = {name: value for name, value in lines.items() if value is not None} | os.environ
    return load(environ | {name: str(value) for name, value in given.items() if value is not None})


def need(url: str, name: str) -> None:
    """Raises SettingsError: there is no such server."""
    if not url:
        raise SettingsError(f"{name} is not set: name the server to use, or run `jobflow dev`, which brings its own.")


def address(settings: Settings) -> str:
    """Where a Jobflow with these settings answers, as seen from this machine."""
    host = "localhost" if settings.loopback else ANY.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host.strip('[]') and host[0] != '[' else host}:{settings.port}"
