"""All checks, one after another."""

from __future__ import annotations

from jobflow.doctor import database, place, queue, servers
from jobflow.doctor.finding import Finding
from jobflow.settings import Settings


async def examine(settings: Settings) -> list[Finding]:
    """Everything that can be checked with these settings."""
    findings = place.check(settings)
    known, urls = servers.find(settings)
    findings += known
    if urls.database_url:
        findings += await database.check(urls.database_url, settings)
    if urls.redis_url:
        findings += await queue.check(urls.redis_url)
    return findings
