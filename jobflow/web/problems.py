"""Every refusal as RFC 9457 problem details, and the one table of which error is which status.

``type`` is a URN of ours, save for 429: there it is the one of the RateLimit draft
(draft-ietf-httpapi-ratelimit-headers, "quota-exceeded").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException

from jobflow import errors
from jobflow.web.call import Answer, Headers, Visit

RETRY_UNAVAILABLE = 5  # seconds until a client should try again when Postgres is away
RETRY_IN_FLIGHT = 1  # … when the first request with its key still runs


class Refused(errors.JobflowError):
    """A request that is refused for its form, before anything looks at what it asks for."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.headers, self.extra = status, headers or {}, extra


class InvalidQuery(errors.Invalid):
    """Query parameters that do not fit: the ``pointer`` of a fault is the parameter's name."""


class Kind(NamedTuple):
    status: int
    type: str
    title: str


def _kind(status: int, name: str, title: str) -> Kind:
    return Kind(status, f"urn:jobflow:problem:{name}", title)


# The first class in an error's ancestry that stands here decides.
KINDS: Mapping[type[Exception], Kind] = {
    errors.Malformed: _kind(400, "malformed", "The request cannot be read"),
    errors.NotFound: _kind(404, "not-found", "Not found"),
    errors.Pruned: _kind(410, "pruned", "No longer kept"),
    errors.UniqueConflict: _kind(409, "unique-key-taken", "A live job holds this unique_key"),
    errors.KeyInFlight: _kind(
        409, "idempotency-key-in-flight", "The first request with this Idempotency-Key still runs"
    ),
    errors.Conflict: _kind(409, "conflict", "Not possible in the current state"),
    errors.KeyReused: _kind(422, "idempotency-key-reused", "This Idempotency-Key came with another body"),
    errors.Invalid: _kind(422, "invalid", "The request does not fit"),
    errors.Unavailable: _kind(503, "unavailable", "A server that is needed is away"),
}
STATUSES: Mapping[int, Kind] = {
    kind.status: kind
    for kind in (
        _kind(400, "malformed", "The request cannot be read"),
        _kind(401, "unauthorized", "A token is needed"),
        _kind(403, "forbidden", "Not allowed"),
        _kind(404, "not-found", "Not found"),
        _kind(405, "method-not-allowed", "This method is not possible here"),
        _kind(408, "too-slow", "The body did not come in time"),
        _kind(413, "too-large", "The body is too large"),
        _kind(415, "unsupported-media-type", "The body must be plain application/json"),
        _kind(421, "misdirected", "This is not the server of that name"),
        Kind(429, "https://iana.org/assignments/http-problem-types#quota-exceeded", "Too many requests"),
        _kind(500, "internal", "Jobflow failed"),
    )
}
INTERNAL = STATUSES[500]
EVERY_KIND = frozenset({*KINDS.values(), *STATUSES.values()})


class Problem(msgspec.Struct, kw_only=True):
    """The body of every error. Members beyond these are written beside them (``current_status``, …)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET


def kind_of(error: Exception) -> Kind:
    """What an error is to a client; ``INTERNAL`` for what nobody expected."""
    if isinstance(error, Refused):
        return STATUSES[error.status]
    if isinstance(error, HTTPException):
        return STATUSES.get(error.status_code, INTERNAL)
    return next((KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS), INTERNAL)


def problem(error: Exception, visit: Visit) -> Answer:
    """The answer to a request that raised ``error``; says nothing about errors that nobody expected."""
    kind = kind_of(error)
    body = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=_detail(error, kind, visit),
        instance=visit.path,
        request_id=visit.request_id,
        errors=_faults(error),
    )
    extra = error.extra if isinstance(error, errors.Conflict | Refused) else {}
    return Answer(
        kind.status,
        msgspec.json.encode(msgspec.to_builtins(body) | extra),
        [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"), *_headers(error)],
    )


def _detail(error: Exception, kind: Kind, visit: Visit) -> str:
    if kind is INTERNAL:
        return f"This is a bug of ours. The log has it under the request id {visit.request_id}."
    if isinstance(error, MethodNotAllowedException):
        return f"{visit.method} is not possible here; the Allow header says what is."
    if isinstance(error, HTTPException):
        return "There is nothing here; /openapi.json lists what there is." if kind.status == 404 else error.detail
    return str(error)


def _faults(error: Exception) -> list[dict[str, str]] | msgspec.UnsetType:
    if not isinstance(error, errors.Invalid):
        return msgspec.UNSET
    place = "parameter" if isinstance(error, InvalidQuery) else "pointer"
    return [{place: fault.pointer, "detail": fault.detail} for fault in error.faults]


def _headers(error: Exception) -> Headers:
    if isinstance(error, errors.KeyInFlight):
        return [(b"retry-after", b"%d" % RETRY_IN_FLIGHT)]
    if isinstance(error, errors.Unavailable):
        return [(b"retry-after", b"%d" % RETRY_UNAVAILABLE)]
    if isinstance(error, Refused | HTTPException):
        return [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    return []
