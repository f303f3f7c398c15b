"""Every error as problem details (RFC 9457), and which error is which status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.exceptions import MethodNotAllowedException, NotFoundException

from jobflow import errors
from jobflow.web.call import Visit
from jobflow.web.problems import EVERY_KIND, INTERNAL, InvalidQuery, Refused, kind_of, problem

VISIT = Visit(None, {"method": "POST", "path": "/jobs"}, {}, "r-1")  # type: ignore[arg-type]


def shown(error: Exception) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    answer = problem(error, VISIT)
    return answer.status, msgspec.json.decode(answer.body), dict(answer.headers)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Malformed("x"), 400),
        (errors.NotFound("x"), 404),
        (NotFoundException(), 404),
        (MethodNotAllowedException(), 405),
        (errors.Conflict("x"), 409),
        (errors.UniqueConflict("x"), 409),
        (errors.KeyInFlight("x"), 409),
        (errors.Pruned("x"), 410),
        (errors.Invalid(errors.Fault("/a", "x")), 422),
        (InvalidQuery(errors.Fault("a", "x")), 422),
        (errors.KeyReused("x"), 422),
        (errors.StoreUnavailable("x"), 503),
        (errors.AnswerLost("x", 1), 503),
        (errors.BrokerUnavailable("x"), 503),
        *((Refused(status, "x"), status) for status in (401, 403, 408, 413, 415, 421, 429)),
        (errors.SettingsError("x"), 500),
        (KeyError("x"), 500),
    ],
)
def test_each_error_has_its_status_and_all_members(error: Exception, status: int) -> None:
    given, body, headers = shown(error)

    assert given == status == body["status"]
    assert headers[b"content-type"] == b"application/problem+json"
    assert {"type", "title", "detail", "instance", "request_id"} <= set(body)
    assert (body["instance"], body["request_id"]) == ("/jobs", "r-1")
    assert ("errors" in body) == isinstance(error, errors.Invalid)


def test_types_tell_apart_what_a_program_must_tell_apart() -> None:
    conflicts = [errors.Conflict("x"), errors.UniqueConflict("x"), errors.KeyInFlight("x")]
    assert len({kind_of(error).type for error in conflicts}) == 3
    assert kind_of(errors.KeyReused("x")).type != kind_of(errors.Invalid()).type
    assert kind_of(Refused(429, "x")).type == "https://iana.org/assignments/http-problem-types#quota-exceeded"


def test_every_error_of_ours_that_a_request_can_meet_is_in_the_table() -> None:
    internal = {errors.JobflowError, errors.SettingsError, errors.SchemaTooNew, errors.RunLost}
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.JobflowError)]
    missing = {kind for kind in ours if kind_of(kind.__new__(kind)) is INTERNAL}

    assert missing <= internal


def test_every_type_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    for kind in EVERY_KIND:
        assert f"`{kind.type.removeprefix('urn:jobflow:problem:')}`" in text
        assert f"| {kind.status} |" in text


def test_faults_have_pointers_and_parameters_have_names() -> None:
    _, body, _ = shown(errors.Invalid(errors.Fault("/a/0", "must be b"), errors.Fault("", "x")))
    assert body["errors"] == [{"pointer": "/a/0", "detail": "must be b"}, {"pointer": "", "detail": "x"}]
    _, body, _ = shown(InvalidQuery(errors.Fault("limit", "must be 1")))
    assert body["errors"] == [{"parameter": "limit", "detail": "must be 1"}]


def test_a_conflict_tells_the_state() -> None:
    _, body, _ = shown(errors.Conflict("no", current_status="completed"))
    assert body["current_status"] == "completed"


@pytest.mark.parametrize("error", [errors.StoreUnavailable("x"), errors.KeyInFlight("x")])
def test_what_passes_says_when_to_try_again(error: Exception) -> None:
    assert int(shown(error)[2][b"retry-after"]) >= 1


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    _, body, _ = shown(ValueError("secret"))

    assert "secret" not in str(body)
    assert "r-1" in body["detail"]
