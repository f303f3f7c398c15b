"""What can be checked without the servers: settings, handlers, the port and who can reach it."""

from __future__ import annotations

import http.client
import os
import sys
from contextlib import redirect_stdout

from jobflow import registry
from jobflow.doctor.finding import Finding, fail, ok, warn
from jobflow.errors import SettingsError
from jobflow.serving import listening
from jobflow.settings import Settings, check_exposure, variables

ASK = 3.0  # seconds


def check(settings: Settings) -> list[Finding]:
    return [_settings(settings), _handlers(settings), _exposure(settings), _port(settings)]


def _settings(settings: Settings) -> Finding:
    changed = [env for env, field, default, *_ in variables() if getattr(settings, field) != default]
    where = " and .env" if os.path.exists(".env") else ""
    return ok("settings", f"read from the environment{where}; not at their default: {', '.join(changed) or 'none'}")


def _handlers(settings: Settings) -> Finding:
    try:
        with redirect_stdout(sys.stderr):  # a module that prints must not spoil --json
            types = registry.load(settings.handler_modules).types
    except SettingsError as error:
        return fail("handlers", str(error), "Mend the module, or start in the folder that holds it.")
    if not types:
        return warn(
            "handlers", f"{settings.handlers} registers no job type", "Decorate a function with @job in one of them."
        )
    return ok("handlers", f"{len(types)} job types from {settings.handlers}: {', '.join(sorted(types))}")


def _exposure(settings: Settings) -> Finding:
    try:
        check_exposure(settings)
    except SettingsError as error:
        return fail("exposure", str(error), "`jobflow serve` does not start until then.")
    if settings.loopback:
        return ok("exposure", f"{settings.host} is reached from this machine only")
    if settings.admin_token:
        return ok("exposure", f"{settings.host} can be reached by others, who need JOBFLOW_ADMIN_TOKEN")
    return warn(
        "exposure",
        f"JOBFLOW_AUTH=off: whoever reaches {settings.host}:{settings.port} can run every handler",
        "See to it that something else guards that address, or set JOBFLOW_ADMIN_TOKEN.",
    )


def _port(settings: Settings) -> Finding:
    try:
        with listening(settings):
            return ok("port", f"{settings.port} is free")
    except SettingsError as error:
        answer = _ask(settings)
        if answer is None:
            return fail("port", str(error), "What holds it does not answer like Jobflow.")
        if answer.startswith("200"):
            return ok("port", f"Jobflow answers on {settings.port}: {answer[4:]}")
        return warn("port", f"Jobflow on {settings.port} is not ready: {answer[4:]}", "See GET /readyz?verbose.")


def _ask(settings: Settings) -> str | None:
    """Status and body of /readyz; None: no Jobflow there."""
    host = settings.host.strip("[]")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in ("0.0.0.0", "::") else host, settings.port, timeout=ASK  # noqa: S104
    )  # fmt: skip
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(200).decode(errors="replace").strip()
        ours = answer.getheader("x-request-id") and answer.status in (200, 503)
        return f"{answer.status} {body}" if ours else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
