"""The door: what every request passes before it reaches a route, known or not.

In this order: headers sent twice (400), Host (421), another site's browser (403), token (401), rate limit (429).
Nothing here reads the body.
"""

from __future__ import annotations

import hmac
import itertools
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jobflow.errors import Malformed
from jobflow.web.call import Visit
from jobflow.web.clients import sender_of
from jobflow.web.dashboard.session import Sessions, is_page
from jobflow.web.limits import RateLimiter
from jobflow.web.parts import Parts
from jobflow.web.problems import Refused

# Probes come by address and without a token, and learn nothing but "ok" or why not.
OPEN_PATHS = frozenset({"/livez", "/readyz"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LISTS = frozenset(
    {b"accept", b"accept-encoding", b"accept-language", b"if-none-match", b"prefer", b"x-forwarded-for", b"via"}
)
SINGLE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"idempotency-key",
        b"x-request-id",
    }
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?")


class Door:
    """Lets requests in, one ``Visit`` each."""

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        settings = parts.settings
        self._parts = parts
        self._sessions = sessions
        self._token = settings.admin_token.encode()
        self._networks = settings.proxy_networks
        self._ours = lru_cache(256)(lambda host: _is_ours(host, settings.allowed_hosts))
        self._prefix = secrets.token_hex(6)  # request ids: unique over processes, a counter inside one
        self._numbers = itertools.count(1)
        self.limiter = RateLimiter(
            parts.broker.take,
            limit=settings.rate_limit_max,
            window=settings.rate_limit_window,
            live_processes=lambda: parts.engine.live_processes,
        )

    def meet(self, scope: Any) -> Visit:
        """Give a request its id; the id it brought is kept when it is 1 to 128 of A-Z a-z 0-9 . _ : -"""
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        sane = given is not None and _REQUEST_ID.fullmatch(given)
        request_id = given.decode() if given is not None and sane else f"{self._prefix}-{next(self._numbers):x}"
        return Visit(self._parts, scope, headers, request_id)

    async def check(self, visit: Visit, scope: Any) -> None:
        """Raises Refused or Malformed, or notes the rate-limit headers of the answer in ``visit``."""
        if len(visit.headers) != len(scope["headers"]):
            visit.headers = _joined(scope["headers"])
        headers = visit.headers
        if visit.path not in OPEN_PATHS:
            if not self._ours(headers.get(b"host", b"")):
                raise Refused(
                    421, "The Host header names another server. JOBFLOW_HOSTS lists further names of this one."
                )
            if visit.method not in SAFE_METHODS and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
                raise Refused(403, "A page of another site may not change anything here.")
            if self._token and not self._sessions.admits(visit):
                _check_token(headers.get(b"authorization", b""), self._token)
        if visit.method == "POST" and not is_page(visit.path):
            verdict = await self.limiter.check(sender_of(scope, headers, self._networks))
            visit.extra += verdict.headers
            if not verdict.granted:
                raise self.limiter.refusal(verdict)


def _joined(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers of which some came twice: lists are joined in order, a second value elsewhere is an attack or a mistake."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in headers and name in SINGLE:
            raise Malformed(f"The header {name.decode()} must come once.")
        headers[name] = headers[name] + b", " + value if name in headers and name in LISTS else value
    return headers


def _is_ours(host: bytes, allowed: set[str]) -> bool:
    match = _HOST.fullmatch(host.decode("latin-1").lower())
    return "*" in allowed or (match is not None and match[1] in allowed)


def _check_token(given: bytes, token: bytes) -> None:
    scheme, _, credentials = given.partition(b" ")
    # Compared in full whatever differs, so that the time taken tells nothing.
    if not (hmac.compare_digest(credentials.strip(), token) and scheme.lower() == b"bearer"):
        detail = "Send Authorization: Bearer and the token of JOBFLOW_ADMIN_TOKEN."
        raise Refused(401, detail, {"WWW-Authenticate": 'Bearer realm="jobflow"'})
