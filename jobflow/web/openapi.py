"""The description of the API (OpenAPI 3.1), written beside each route as an ``Operation`` and put together once.

Exact enough to generate a client from: schemas come from the very types that read and write the bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from jobflow import __version__
from jobflow.lifecycle import Status
from jobflow.registry import QUEUE_NAME, TYPE_NAME
from jobflow.web.accept import WAIT_MAX
from jobflow.web.problems import EVERY_KIND, Problem
from jobflow.web.query import LIMIT, LIMIT_MAX, OFFSET_MAX, TEXT_MAX

REF = "#/components/schemas/{name}"
PROBLEM_HEADERS = {429: ("Retry-After", "RateLimit", "RateLimit-Policy"), 503: ("Retry-After",), 405: ("Allow",)}
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route says of itself.

    ``answers``: status → type of the JSON body, or the media type of another one, or several of those by Accept, or None.
    ``errors``: statuses besides those that any request can get. ``open``: needs no token.
    """

    id: str
    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    query: tuple[dict[str, Any], ...] = ()
    headers: tuple[dict[str, Any], ...] = ()
    errors: tuple[int, ...] = ()
    open: bool = False


def _parameter(name: str, description: str, schema: dict[str, Any], place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "description": description, "schema": schema}


_TIME = {"type": "string", "format": "date-time"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}

VERBOSE_PARAMETER = _parameter("verbose", "One line for each check.", {"type": "string"}) | {"allowEmptyValue": True}
STATUS_PARAMETER = _parameter(
    "status", "Any of these; may be repeated.", {"type": "array", "items": {"type": "string", "enum": list(Status)}}
)
FILTER_PARAMETERS = (
    _parameter("type", "Job type.", {"type": "string", "pattern": TYPE_NAME}),
    _parameter("queue", "Queue.", {"type": "string", "pattern": QUEUE_NAME}),
    _parameter("tag", "Has this tag.", _TEXT),
    _parameter("created_after", "Created then or later.", _TIME),
    _parameter("created_before", "Created earlier.", _TIME),
    _parameter("error", "Text in the last error, any case; among the newest 100,000.", _TEXT),
    _parameter(
        "payload",
        "`payload.<path>=value`, such as `payload.user.id=42`; among the newest 100,000.",
        {"type": "object", "patternProperties": {r"^payload\.": {"type": "string"}}, "additionalProperties": False},
    )
    | {"style": "form", "explode": True},
    _parameter("limit", "Jobs on a page.", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}),
    _parameter("cursor", "`next_cursor` of the page before, with the same filters.", {"type": "string"}),
    _parameter(
        "offset", "Jobs to skip; not together with cursor.", {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX}
    ),
)
WAIT_PARAMETER = _parameter(
    "wait",
    "Seconds to wait for a change of the job.",
    {"type": "integer", "minimum": 0, "maximum": WAIT_MAX, "default": 0},
)
PREFER_HEADER = _parameter(
    "Prefer",
    f"`wait=10` holds the answer until the job has ended, {WAIT_MAX} s at most (RFC 7240).",
    {"type": "string"},
    "header",
)
KEY_HEADER = _parameter(
    "Idempotency-Key",
    "However often a request with this key comes within 24 h, it is carried out once; quoted or bare.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "header",
)


def describe(routes: Iterable[tuple[str, str, Operation]]) -> bytes:
    """The document, for (method, path, operation) of every route; path parameters as ``{name}``."""
    rows = list(routes)
    types = {kind for _, _, op in rows for answer in op.answers.values() for kind in (op.body, *_kinds(answer))}
    ordered = sorted({Problem, *filter(_is_model, types)}, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=REF)
    _refine(components)
    references = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, operation in rows:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation, references)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Jobflow",
                "version": __version__,
                "summary": "Background jobs over REST.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}, {}],
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "JOBFLOW_ADMIN_TOKEN"}
                },
            },
        }
    )


def _operation(method: str, path: str, operation: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id if method != "HEAD" else operation.id + "Head",
        "summary": operation.summary,
        "parameters": [
            *(
                _parameter(name, "", {"type": "string"}, "path") | {"required": True}
                for name in _PATH_PARAMETER.findall(path)
            ),
            *operation.query,
            *operation.headers,
        ],
        "responses": {
            **{str(status): _answer(status, kind, references) for status, kind in operation.answers.items()},
            **{str(status): _problem(status, references) for status in _errors(method, operation)},
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": references[operation.body]}},
        }
    if operation.open:
        described["security"] = []
    return described


def _errors(method: str, operation: Operation) -> list[int]:
    """What any request can get, by its method, and what this one names."""
    common = {500} if operation.open else {400, 401, 421, 500}
    if method == "POST":
        common.add(429)
    if method not in ("GET", "HEAD"):
        common.add(403)
    if 413 in operation.errors:  # it reads a body
        common.add(408)
    return sorted(common | set(operation.errors))


def _answer(status: int, kind: Any, references: Mapping[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if kind is not None:
        answer["content"] = {
            one if isinstance(one, str) else "application/json": {
                "schema": {"type": "string"} if isinstance(one, str) else references.get(one, {"type": "object"})
            }
            for one in _kinds(kind)
        }
    if status in (201, 303):
        answer["headers"] = {"Location": {"schema": {"type": "string"}}}
    return answer


def _problem(status: int, references: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": references[Problem]}},
    }
    if names := PROBLEM_HEADERS.get(status):
        described["headers"] = {name: {"schema": {"type": "string"}} for name in names}
    return described


def _kinds(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _refine(components: dict[str, Any]) -> None:
    """What the Python types leave open: stored JSON is ``Raw``, a status is text."""
    job = components["Job"]["properties"]
    job["payload"] = {"type": "object"}
    job["result"] = {"description": "Whatever the handler returned."}
    job["status"] = {"type": "string", "enum": list(Status)}
    components["Problem"]["additionalProperties"] = True
    components["Problem"]["properties"]["type"] |= {
        "format": "uri",
        "examples": sorted(kind.type for kind in EVERY_KIND),
    }
    components["Problem"]["properties"]["errors"]["items"] = {
        "type": "object",
        "properties": {
            "pointer": {"type": "string", "description": "JSON Pointer into the body."},
            "parameter": {"type": "string", "description": "Or the name of a query parameter."},
            "detail": {"type": "string"},
        },
        "required": ["detail"],
    }
