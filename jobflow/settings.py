"""Every setting, its default, its unit and its bounds: here and nowhere else.

Values come from the environment; ``.env`` fills in what the environment leaves out. A wrong value stops start-up
with one sentence that names the setting.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from jobflow import failpoints
from jobflow.errors import SettingsError


def _setting(env: str, doc: str, unit: str = "", **bounds: Any) -> Meta:
    return Meta(description=doc, extra={"env": env, "unit": unit}, **bounds)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process. Field by field: type, bounds, default; see ``.env.example`` for the prose."""

    # A table, a line for each setting.
    # fmt: off
    host: Annotated[str, _setting("JOBFLOW_HOST", "Address to listen on", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _setting("PORT", "Port to listen on", ge=1, le=65535)] = 8000
    data: Annotated[str, _setting("JOBFLOW_DATA", "Where `jobflow dev` keeps its servers' data", "folder", min_length=1)] = ".jobflow"
    database_url: Annotated[str, _setting("DATABASE_URL", "PostgreSQL 15 or newer; empty: `jobflow dev` starts its own", "postgresql://user:password@host:port/database")] = ""
    redis_url: Annotated[str, _setting("REDIS_URL", "Redis 7.0 or newer, or Valkey; empty: `jobflow dev` starts its own", "redis://host:port/0")] = ""
    rate_limit_max: Annotated[int, _setting("RATE_LIMIT_MAX", "API POSTs a client may send per window", "requests", ge=1, le=10_000_000)] = 100
    rate_limit_window: Annotated[float, _setting("RATE_LIMIT_WINDOW", "Length of the sliding window", "seconds", ge=1, le=86_400)] = 60.0
    worker_concurrency: Annotated[int, _setting("WORKER_CONCURRENCY", "Jobs this process runs at once; 0: API only", "jobs", ge=0, le=10_000)] = 50
    handlers: Annotated[str, _setting("JOBFLOW_HANDLERS", "Modules that register handlers, separated by commas", "module names")] = "jobflow.demo"
    threads: Annotated[int, _setting("JOBFLOW_THREADS", "Threads for handlers written as plain `def`", "threads", ge=1, le=1_000)] = 32
    admin_token: Annotated[str, _setting("JOBFLOW_ADMIN_TOKEN", "When set, asked for on every route but /livez and /readyz", "16 characters or more")] = ""
    auth: Annotated[Literal["on", "off"], _setting("JOBFLOW_AUTH", "`off`: something else guards an address that is not loopback", "on, off")] = "on"
    hosts: Annotated[str, _setting("JOBFLOW_HOSTS", "Further names this server answers to in the Host header, separated by commas; `*`: any", "host names")] = ""
    trusted_proxies: Annotated[str, _setting("JOBFLOW_TRUSTED_PROXIES", "Proxies whose X-Forwarded-For counts, separated by commas", "addresses or networks")] = ""
    pool_size: Annotated[int, _setting("JOBFLOW_POOL_SIZE", "Postgres connections of this process, besides the heartbeat's one", "connections", ge=14, le=200)] = 20
    redis_pool_size: Annotated[int, _setting("JOBFLOW_REDIS_POOL_SIZE", "Redis connections of this process", "connections", ge=6, le=500)] = 16
    lane_size: Annotated[int, _setting("JOBFLOW_LANE_SIZE", "Job ids that Redis holds for each queue and priority", "ids", ge=100, le=1_000_000)] = 10_000
    lease: Annotated[float, _setting("JOBFLOW_LEASE", "Silence after which a process counts as dead and its jobs run again", "seconds", ge=1, le=600)] = 15.0
    outage_grace: Annotated[float, _setting("JOBFLOW_OUTAGE_GRACE", "How long running jobs go on while Postgres is away", "seconds", ge=0, le=86_400)] = 300.0
    grace: Annotated[float, _setting("JOBFLOW_GRACE", "How long running jobs may finish after SIGTERM", "seconds", ge=0, le=3_600)] = 25.0
    retention_completed: Annotated[float, _setting("JOBFLOW_RETENTION_COMPLETED", "Age at which completed jobs are pruned; 0: never", "days", ge=0, le=36_500)] = 7.0
    retention_cancelled: Annotated[float, _setting("JOBFLOW_RETENTION_CANCELLED", "Age at which cancelled jobs are pruned; 0: never", "days", ge=0, le=36_500)] = 30.0
    retention_dead_letter: Annotated[float, _setting("JOBFLOW_RETENTION_DEAD_LETTER", "Age at which dead-letter jobs are pruned; 0: never", "days", ge=0, le=36_500)] = 0.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _setting("JOBFLOW_LOG_LEVEL", "Least level that is logged", "debug, info, warning, error")] = "info"
    log_format: Annotated[Literal["auto", "json", "text"], _setting("JOBFLOW_LOG_FORMAT", "`auto`: text on a terminal, else one JSON line per event", "auto, json, text")] = "auto"
    failpoints: Annotated[str, _setting("JOBFLOW_FAILPOINTS", "For tests: points at which this process dies, fails or waits", "point=kill, raise or sleep:SECONDS")] = ""
    # fmt: on

    @property
    def beat(self) -> float:
        """Seconds between two heartbeats: five tries for each lease."""
        return self.lease / 5

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address we listen on."""
        return is_loopback(self.host)

    @property
    def handler_modules(self) -> list[str]:
        return _split(self.handlers)

    @property
    def proxy_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        return [ipaddress.ip_network(part, strict=False) for part in _split(self.trusted_proxies)]

    @property
    def allowed_hosts(self) -> set[str]:
        """Names accepted in the Host header, lower case, without a port; ``{"*"}`` accepts any."""
        names = {name.lower() for name in _split(self.hosts)}
        return {"*"} if "*" in names else names | {"localhost", "127.0.0.1", "[::1]", self.host.lower()}


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses; a name that is not an address counts as reachable by others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def variables() -> list[tuple[str, str, Any, str, str]]:
    """(environment name, field, default, unit, meaning) of every setting, in the order of ``Settings``."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        extra, text = _meta(field.type)
        rows.append((extra["env"], field.name, field.default, extra["unit"], text))
    return rows


def load(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings.

    environ: usually ``os.environ`` over the values of ``.env``. An empty value means the default.
    Raises SettingsError: a sentence that names the setting, for the first wrong one.
    """
    names = {env: field for env, field, *_ in variables()}
    for name in environ:
        if name.startswith("JOBFLOW_") and name not in names:
            raise SettingsError(f"{name} is not a setting of Jobflow. See .env.example for the list.")
    given = {field: environ[env].strip() for env, field in names.items() if environ.get(env, "").strip()}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        message = str(error)
        env = next((e for e, f in names.items() if f"`$.{f}`" in message), "A setting")
        raise SettingsError(f"{env} is wrong: {message.split(' - at ')[0]} (it is {environ.get(env, '')!r}).") from None
    _check(settings)
    return settings


def _check(s: Settings) -> None:
    for env, url, schemes in (
        ("DATABASE_URL", s.database_url, ("postgresql", "postgres")),
        ("REDIS_URL", s.redis_url, ("redis", "rediss", "unix")),
    ):
        if url and (not re.match(r"^[a-z]+://", url) or url.split("://")[0] not in schemes):
            raise SettingsError(f"{env} is wrong: it must start with {schemes[0]}://.")
    if s.admin_token and (
        len(s.admin_token) < 16
        or not s.admin_token.isascii()
        or not s.admin_token.isprintable()
        or " " in s.admin_token
    ):
        raise SettingsError("JOBFLOW_ADMIN_TOKEN is wrong: it needs at least 16 visible ASCII characters.")
    failpoints.parse(s.failpoints)
    for part in _split(s.trusted_proxies):
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise SettingsError(
                f"JOBFLOW_TRUSTED_PROXIES is wrong: {part!r} is neither an address nor a network."
            ) from None
    for module in s.handler_modules:
        if not all(name.isidentifier() for name in module.split(".")):
            raise SettingsError(f"JOBFLOW_HANDLERS is wrong: {module!r} is not the name of a module.")
    if not s.handler_modules:
        raise SettingsError("JOBFLOW_HANDLERS is wrong: it names no module.")


def check_exposure(s: Settings) -> None:
    """Refuse an address that others can reach while nothing guards it.

    Raises SettingsError: the address is not loopback, no token is set and JOBFLOW_AUTH is not ``off``.
    """
    if not (s.loopback or s.admin_token or s.auth == "off"):
        raise SettingsError(
            f"JOBFLOW_HOST={s.host} can be reached by others and nothing guards it: set JOBFLOW_ADMIN_TOKEN, "
            "or JOBFLOW_AUTH=off if something else does."
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _meta(annotation: Any) -> tuple[dict[str, str], str]:
    for meta in annotation.__metadata__:
        if isinstance(meta, Meta) and meta.extra:
            return meta.extra, meta.description or ""
    raise AssertionError(f"{annotation} has no setting")
