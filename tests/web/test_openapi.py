"""The description agrees with the routes, and a client could be made from it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jobflow.web.dashboard.session import is_page
from tests.web.stubs import Stage


@pytest.fixture
def document() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(Stage().app.state.openapi)
    return described


async def test_it_is_served() -> None:
    stage = Stage()
    answer = await stage.request("GET", "/openapi.json")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == stage.app.state.openapi


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, op) for path, methods in document["paths"].items() for method, op in methods.items()]


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r":\w+\}", "}", route.path), str(method).lower())
        for route in Stage().app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS" and not is_page(route.path) and not route.path.startswith("/static/")
    }

    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_the_contract_of_this_step_is_there(document: dict[str, Any]) -> None:
    wanted = {
        *("GET /docs", "GET /events", "GET /jobs/{job_id}/events"),
        *("GET /", "POST /jobs", "POST /jobs/bulk", "GET /jobs", "GET /jobs/{job_id}", "DELETE /jobs/{job_id}"),
        *("POST /jobs/{job_id}/retry", "POST /jobs/{job_id}/cancel", "POST /jobs/{job_id}/discard"),
        *("GET /dlq", "POST /dlq/retry", "GET /queues", "GET /queues/{name}", "GET /workers", "GET /types"),
        *("GET /metrics", "GET /livez", "HEAD /livez", "GET /readyz", "HEAD /readyz", "GET /openapi.json"),
    }

    assert {f"{method.upper()} {path}" for path, method, _ in operations(document)} == wanted


def test_references_lead_somewhere_and_names_are_unique(document: dict[str, Any]) -> None:
    names = {reference.rpartition("/")[2] for reference in re.findall(r"#/components/schemas/\w+", str(document))}
    assert names == set(document["components"]["schemas"])

    ids = [op["operationId"] for _, _, op in operations(document)]
    assert len(set(ids)) == len(ids)


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, _, op in operations(document):
        declared = {p["name"] for p in op["parameters"] if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_errors_are_described(document: dict[str, Any]) -> None:
    submit = document["paths"]["/jobs"]["post"]["responses"]
    assert set(submit) == {
        "200",
        "201",
        "400",
        "401",
        "403",
        "408",
        "409",
        "413",
        "415",
        "421",
        "422",
        "429",
        "500",
        "503",
    }
    assert set(submit["429"]["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    for _, _, op in operations(document):
        for status, answer in op["responses"].items():
            if int(status) >= 400 and "text/plain" not in answer.get("content", {}):
                assert list(answer["content"]) == ["application/problem+json"]


def test_schemas_are_those_of_the_bodies(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    request = schemas["JobRequest"]
    assert request["required"] == ["type"]
    assert request["additionalProperties"] is False
    assert request["properties"]["priority"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 9}
    assert "dead_letter" in schemas["Job"]["properties"]["status"]["enum"]
    assert document["openapi"].startswith("3.1")


def test_times_are_described_as_times(document: dict[str, Any]) -> None:
    members = [m for schema in document["components"]["schemas"].values() for m in schema["properties"].items()]
    times = [(name, schema) for name, schema in members if name.endswith(("_at", "_until", "_after", "_before"))]

    assert len(times) > 15
    assert [name for name, schema in times if '"date-time"' not in json.dumps(schema)] == []


def test_probes_need_no_token(document: dict[str, Any]) -> None:
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in document["paths"]["/jobs"]["post"]
