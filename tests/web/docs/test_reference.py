"""From the description to the page's own structures."""

from __future__ import annotations

from typing import Any

import pytest

from jobflow.web.docs.reference import Endpoint, Kind, kind_of, read
from tests.web.docs.document import RAW

REFERENCE = read(RAW)
ENDPOINTS = {endpoint.id: endpoint for section in REFERENCE.sections for endpoint in section.endpoints}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, Kind("text")),
        ({"type": "integer", "minimum": 0, "maximum": 9}, Kind("integer", "0 to 9")),
        ({"type": "string", "maxLength": 5}, Kind("text", "up to 5 characters")),
        ({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}, Kind("UUID or null")),
        ({"enum": ["a", "b"]}, Kind("text", "a, b")),
        ({"$ref": "#/components/schemas/Job"}, Kind("Job", model="Job")),
        ({"type": "array", "items": {"$ref": "#/x/Job"}}, Kind("list of Job", model="Job")),
        (
            {"type": "array", "maxItems": 2, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
            Kind("list of text", "up to 2 of them, each 1 to 64 characters"),
        ),
        ({"type": "string", "pattern": "^x$"}, Kind("text", "^x$")),
        ({}, Kind("any")),
    ],
)
def test_kinds_in_words(schema: dict[str, Any], kind: Kind) -> None:
    assert kind_of(schema) == kind


def test_an_endpoint_has_everything() -> None:
    submit: Endpoint = ENDPOINTS["submitJob"]

    assert (submit.methods, submit.path, submit.body) == (["POST"], "/jobs", "JobRequest")
    assert [(p.name, p.place) for p in submit.parameters] == [("Idempotency-Key", "header"), ("Prefer", "header")]
    type_, priority = submit.members[0], submit.members[3]
    assert (type_.name, type_.required, type_.kind.bounds) == ("type", True, "1 to 128 of A-Z a-z 0-9 . _ : -")
    assert (priority.name, priority.required, priority.kind) == ("priority", False, Kind("integer or null", "0 to 9"))
    assert [(answer.status, answer.model) for answer in submit.answers] == [(200, "Job"), (201, "Job")]
    assert [failure.status for failure in submit.failures] == [409, 413, 415, 422, 503]
    assert "256 KiB" in submit.limits[0]
    assert submit.example


def test_head_stands_beside_get() -> None:
    assert ENDPOINTS["livez"].methods == ["GET", "HEAD"]
    assert ENDPOINTS["livez"].open
    assert not ENDPOINTS["submitJob"].open


def test_bounds_and_defaults_of_parameters() -> None:
    limit = next(p for p in ENDPOINTS["listJobs"].parameters if p.name == "limit")
    assert (limit.kind, limit.default, limit.place) == (Kind("integer", "1 to 200"), "50", "query")


def test_all_that_is_linked_is_there() -> None:
    bodies = {endpoint.body for endpoint in ENDPOINTS.values()}
    models = {model.name for model in REFERENCE.models}
    kinds = [member.kind for model in REFERENCE.models for member in model.members]
    kinds += [member.kind for endpoint in ENDPOINTS.values() for member in endpoint.members]

    assert {kind.model for kind in kinds if kind.model} <= models | bodies
    assert {answer.model for endpoint in ENDPOINTS.values() for answer in endpoint.answers} - {""} <= models


def test_an_operation_without_words_is_shown_all_the_same() -> None:
    document = RAW.replace(b'"operationId":"metrics"', b'"operationId":"brandNew"')
    last = read(document).sections[-1]

    assert (last.subject.title, [endpoint.id for endpoint in last.endpoints]) == ("More", ["brandNew"])
    assert last.endpoints[0].example is None


def test_answers_that_are_no_json_say_what_they_are_and_errors_which_problems_they_are() -> None:
    assert [answer.media for answer in ENDPOINTS["jobEvents"].answers] == ["text/event-stream"]
    assert ENDPOINTS["metrics"].answers[0].media.startswith("application/json or text/plain")
    types = {failure.status: failure.types for failure in REFERENCE.errors}
    assert types[409] == tuple(
        f"urn:jobflow:problem:{name}" for name in ("conflict", "idempotency-key-in-flight", "unique-key-taken")
    )
    assert all(types.values())
