"""Every operation has an example; the application takes what it sends and answers what it shows."""

from __future__ import annotations

import asyncio
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from litestar import Litestar

from jobflow.pool import Connection
from jobflow.web.docs.examples import EVENTS, EXAMPLES, ID, JSON, PROBLEM, Example
from jobflow.web.problems import Problem
from tests.support.rows import add_job
from tests.web.docs.document import OPERATIONS, SCHEMAS

ORIGIN = "http://localhost"
OPAQUE = {"payload", "payload_schema", "result"}  # members whose inside is the caller's own
CALLS = [(id, *OPERATIONS[id], EXAMPLES[id]) for id in OPERATIONS if id in EXAMPLES]


def test_every_operation_has_one_and_nothing_else_has() -> None:
    assert set(EXAMPLES) == set(OPERATIONS)


def request_of(command: str) -> dict[str, Any]:
    """What a shell and curl make of a command."""
    words = iter(shlex.split(command.replace("\\\n", "")))
    assert next(words) == "curl"
    request: dict[str, Any] = {"method": "GET", "headers": {}}
    for word in words:
        match word:
            case "-X":
                request["method"] = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                request["headers"][name] = value
            case "-d":
                request["content"] = next(words).encode()
            case "-N":
                pass
            case _:
                request["url"] = word
    return request


async def some_job(database: Connection, id: str) -> UUID:
    """A job in a state from which the operation is possible and answers at once."""
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    await add_job(database, "failed", type="report.generate", run_at=in_an_hour, error_type="E", error_message="m")
    if id in ("cancelJob", "discardJob"):
        return await add_job(database, "scheduled", type="report.generate", run_at=in_an_hour)
    return await add_job(database, "dead_letter", type="report.generate", error_type="E", error_message="m")


def same_members(example: Any, real: Any) -> None:
    if isinstance(example, dict) and isinstance(real, dict):
        assert list(example) == list(real)
        for name in set(example) - OPAQUE:
            same_members(example[name], real[name])
    elif isinstance(example, list) and isinstance(real, list):
        for one, other in zip(example[:1], real[:1], strict=False):
            same_members(one, other)
    elif example is not None and real is not None:
        assert type(example) is type(real)


def events_of(stream: str) -> set[str]:
    return set(re.findall(r"^event: (\w+)$", stream, re.MULTILINE))


@pytest.mark.parametrize(("id", "method", "path", "operation", "example"), CALLS, ids=[call[0] for call in CALLS])
async def test_it_is_true(
    id: str,
    method: str,
    path: str,
    operation: dict[str, Any],
    example: Example,
    app: Litestar,
    http: httpx.AsyncClient,
    database: Connection,
) -> None:
    job = await some_job(database, id)
    request = request_of(example.curl(method, path, ORIGIN, token=False).replace(ID, str(job)))
    if id == "events":  # a stream without end but that of the process
        asyncio.get_running_loop().call_later(0.3, app.state.hub.close)
    if id == "docs":
        request["headers"]["Accept"] = "text/html"
    answer = await http.request(**request)

    assert answer.status_code == example.status, answer.text
    assert str(example.status) in operation["responses"]
    if example.answer is None:
        assert answer.content == b""
        return
    assert answer.headers["content-type"].partition(";")[0] == example.media
    if example.media == EVENTS:
        assert example.text.startswith("retry: 2000\n\n")
        assert events_of(example.text) >= events_of(answer.text)
    elif not isinstance(example.answer, str):
        same_members(example.answer, answer.json())
    else:
        assert answer.text.startswith(example.text.partition("…")[0].rstrip().removesuffix(","))


@pytest.mark.parametrize(("id", "operation", "example"), [(c[0], c[3], c[4]) for c in CALLS], ids=[c[0] for c in CALLS])
def test_an_answer_has_the_members_of_its_schema(id: str, operation: dict[str, Any], example: Example) -> None:
    content = operation["responses"][str(example.status)].get("content", {})
    schema = content.get(JSON, {}).get("schema", {})
    if "$ref" in schema:
        conforms(example.answer, schema)


def test_the_problem_is_one() -> None:
    assert msgspec.convert(PROBLEM, Problem).status == 422
    conforms(PROBLEM, {"$ref": "#/components/schemas/Problem"})


def conforms(tree: Any, schema: dict[str, Any]) -> None:
    """Members by name, kinds by the schema, all the way down."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
        assert set(schema["required"]) <= set(tree) <= set(schema["properties"]), schema["title"]
    if "anyOf" in schema:
        if tree is None:
            assert {"type": "null"} in schema["anyOf"]
            return
        schema = next(part for part in schema["anyOf"] if part != {"type": "null"})
        conforms(tree, schema)
        return
    if "enum" in schema:
        assert tree in schema["enum"]
    for name, value in schema.get("properties", {}).items():
        if name in tree:
            conforms(tree[name], value)
    if schema.get("type") == "array":
        for item in tree:
            conforms(item, schema["items"])


def test_a_command_survives_the_shell() -> None:
    example = Example({}, body={"text": 'it\'s $HOME "and" `more`'}, headers=(("A", "b"),))
    command = example.curl("POST", "/jobs/{job_id}", "https://x.example", token=True)

    assert request_of(command) == {
        "method": "POST",
        "url": f"https://x.example/jobs/{ID}",
        "headers": {"Authorization": "Bearer $JOBFLOW_ADMIN_TOKEN", "A": "b", "Content-Type": "application/json"},
        "content": b'{"text": "it\'s $HOME \\"and\\" `more`"}',
    }
