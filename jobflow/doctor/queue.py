"""Redis: is it there, new enough, and will it keep what it is given?"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from jobflow.doctor.finding import Finding, fail, ok, warn

OLDEST = (7, 0)
PATIENCE = 5.0  # seconds
SLOW = 5.0  # milliseconds
FULL = 0.8  # of maxmemory


async def check(url: str) -> list[Finding]:
    place = urlsplit(url)
    where = f"{place.hostname or place.path}:{place.port or 6379}"
    client: Any = Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, decode_responses=True)
    try:
        info = await client.info()
        answers = await latency(client)
    except AuthenticationError as error:
        return [fail("redis", f"{where} refuses us: {error}", "Mend the user or password in REDIS_URL.")]
    except (RedisError, OSError, ValueError) as error:
        said = f"{where} does not answer: {error or type(error).__name__}"
        return [fail("redis", said, "Start Redis, or mend REDIS_URL. Jobflow works without it, but slower.")]
    finally:
        await client.aclose()
    return [server(info, where, answers), memory(info), persistence(info)]


async def latency(client: Any) -> float:
    """Milliseconds of the middle one of five pings."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        await client.ping()
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[2]


def server(info: Any, where: str, answers: float) -> Finding:
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if version < OLDEST:
        return fail("redis", f"{where} is {name}", "Jobflow needs Redis 7.0 or newer, or Valkey.")
    if info.get("role") == "slave":
        return fail("redis", f"{where} is a replica, which cannot be written", "Name the master in REDIS_URL.")
    if answers > SLOW:
        return warn("redis", f"{name} at {where} answers in {answers:.1f} ms", "Put it nearer: workers wait for it.")
    return ok("redis", f"{name} at {where} answers in {answers:.1f} ms")


def memory(info: Any) -> Finding:
    policy, limit, used = info["maxmemory_policy"], info["maxmemory"], info["used_memory"]
    if policy != "noeviction":
        return warn(
            "redis memory", f"maxmemory-policy is {policy}: keys may vanish, and jobs are found late",
            "Set maxmemory-policy to noeviction.",
        )  # fmt: skip
    if limit and used > FULL * limit:
        return warn("redis memory", f"{used / limit:.0%} of maxmemory is used", "Raise maxmemory.")
    bound = f"of {limit / 2**20:.0f} MiB" if limit else "and no maxmemory"
    return ok("redis memory", f"noeviction; {used / 2**20:.0f} MiB used {bound}")


def persistence(info: Any) -> Finding:
    """Never wrong: Redis holds no only copy."""
    how = "append-only file" if info.get("aof_enabled") else "none, or snapshots"
    return ok("redis data", f"persistence: {how}; either will do, since a lost Redis is filled again from Postgres")
