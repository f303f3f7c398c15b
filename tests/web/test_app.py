"""One way to fail, for every route, known or not."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from jobflow.errors import StoreUnavailable
from jobflow.events import RequestFailed
from jobflow.web.app import documented
from tests.web.stubs import Stage

ID = str(uuid4())


async def test_a_bug_is_a_500_in_problem_form_and_an_event() -> None:
    bug = ZeroDivisionError("a secret")
    stage = Stage(client_retry=bug)
    answer = await stage.request("POST", f"/jobs/{ID}/retry", headers={"x-request-id": "r-1"})

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:jobflow:problem:internal"
    assert "a secret" not in answer.text
    assert stage.emitted == [RequestFailed(method="POST", path=f"/jobs/{ID}/retry", request_id="r-1", error=bug)]


async def test_a_bug_in_the_door_is_one_too() -> None:
    stage = Stage()
    stage.take = None  # type: ignore[method-assign, assignment]
    stage.app._door.limiter._take = None  # type: ignore[attr-defined]
    answer = await stage.request("POST", "/jobs")

    assert answer.status_code == 500
    assert [type(event) for event in stage.emitted] == [RequestFailed]


async def test_an_expected_error_is_no_event() -> None:
    stage = Stage(client_retry=StoreUnavailable("Postgres is away."))
    answer = await stage.request("POST", f"/jobs/{ID}/retry")

    assert answer.status_code == 503
    assert answer.json()["detail"] == "Postgres is away."
    assert int(answer.headers["retry-after"]) >= 1
    assert stage.emitted == []


async def test_a_request_that_the_end_of_the_server_cuts_off_is_told_to_come_back() -> None:
    stage = Stage(client_submit=None)
    waiting = asyncio.Event()

    async def submit(*args: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    stage.client.submit = submit
    request = asyncio.create_task(stage.request("POST", "/jobs", json={"type": "noop"}))
    await asyncio.wait_for(waiting.wait(), 5)
    stage.engine.state = "stopped"
    request.cancel()
    answer = await request

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert stage.emitted == []


@pytest.mark.parametrize(
    "path", ["/nothing", "/jobs/a/b/c", "/jobs%00", "/%ff", "/jobs/../../etc", "/dashboard/static/x"]
)
async def test_unknown_paths_are_problems(path: str) -> None:
    answer = await Stage().request("GET", path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_other_method_is_405_with_allow() -> None:
    stage = Stage()
    paths: dict[str, set[str]] = {}
    for method, path, _ in documented(stage.app):
        paths.setdefault(path, set()).add(method)
    assert len(paths) > 15
    for path, methods in paths.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"} - methods:
            answer = await stage.request(method, path.replace("{job_id}", ID).replace("{name}", "default"))
            assert answer.status_code == 405, (method, path)
            assert methods <= {name.strip() for name in answer.headers["allow"].split(",")}


async def test_every_answer_says_that_its_type_holds() -> None:
    stage = Stage()
    for path in ("/", "/types", "/nothing", "/livez"):
        assert (await stage.request("GET", path)).headers["x-content-type-options"] == "nosniff"
