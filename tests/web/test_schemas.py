"""Bodies into requests, with a pointer and a sentence for everything that does not fit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jobflow.client import DeadFilter, JobRequest
from jobflow.errors import Invalid
from jobflow.web.schemas import SENTENCES, fit, submitted_job
from tests.web.stubs import NOW, new_job


def faults(tree: Any, shape: type[Any] = JobRequest, at: str = "") -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        fit(tree, shape, at)
    return dict(refused.value.faults)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"type": ""}, "/type"),
        ({"type": "a b"}, "/type"),
        ({"type": "x" * 129}, "/type"),
        ({"type": "é"}, "/type"),
        ({"type": "a\n"}, "/type"),
        ({"type": 1}, "/type"),
        ({"type": None}, "/type"),
        ({"payload": []}, "/payload"),
        ({"payload": None}, "/payload"),
        ({"payload": "{}"}, "/payload"),
        ({"queue": "Upper"}, "/queue"),
        ({"queue": ""}, "/queue"),
        ({"queue": "default\n"}, "/queue"),
        ({"priority": 10}, "/priority"),
        ({"priority": -1}, "/priority"),
        ({"priority": "5"}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": 2.5}, "/priority"),
        ({"max_attempts": 0}, "/max_attempts"),
        ({"max_attempts": 101}, "/max_attempts"),
        ({"run_at": "tomorrow"}, "/run_at"),
        ({"run_at": "2030-01-01T00:00:00"}, "/run_at"),
        ({"run_at": "2030-02-30T00:00:00Z"}, "/run_at"),
        ({"delay": -1}, "/delay"),
        ({"delay": 1e12}, "/delay"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": 86_401}, "/timeout"),
        ({"expires_at": 5}, "/expires_at"),
        ({"unique_key": ""}, "/unique_key"),
        ({"unique_key": "x" * 256}, "/unique_key"),
        ({"on_conflict": "ignore"}, "/on_conflict"),
        ({"tags": "a"}, "/tags"),
        ({"tags": ["a"] * 21}, "/tags"),
        ({"tags": ["ok", "x" * 65]}, "/tags/1"),
        ({"tags": [""]}, "/tags/0"),
        ({"prio": 1}, "/prio"),
        ({"group_key": "a"}, "/group_key"),  # not built yet: refused like an unknown one
        ({"a/b~": 1}, "/a~1b~0"),
    ],
)
def test_each_member_has_its_place_and_sentence(change: dict[str, Any], pointer: str) -> None:
    found = faults({"type": "a"} | change)

    assert list(found) == [pointer]
    member = pointer.split("/")[1]
    assert found[pointer] == SENTENCES.get(member, found[pointer])
    assert member not in SENTENCES or found[pointer].startswith(member)


def test_all_faults_are_told_together() -> None:
    found = faults({"payload": 1, "priority": 11, "nonsense": True}, at="/jobs/3")

    assert set(found) == {"/jobs/3/type", "/jobs/3/payload", "/jobs/3/priority", "/jobs/3/nonsense"}
    assert found["/jobs/3/priority"] == "priority must be 0 to 9, 0 runs first"
    assert found["/jobs/3/type"].startswith("is missing")


@pytest.mark.parametrize("tree", [None, [], "x", 1, True])
def test_only_an_object_is_a_body(tree: Any) -> None:
    assert faults(tree) == {"": "must be a JSON object"}


def test_every_member_of_every_body_has_a_sentence() -> None:
    for shape in (JobRequest, DeadFilter):
        assert {field.name for field in msgspec.structs.fields(shape)} <= set(SENTENCES)


def test_a_good_body_fits() -> None:
    request = fit({"type": "a.b:c-d_e", "payload": {"x": [1]}, "delay": 3, "tags": ["t"], "queue": None}, JobRequest)

    assert (request.delay, request.tags, request.queue, request.priority) == (3.0, ["t"], None, None)


def test_a_submitted_job_looks_like_a_row_just_inserted() -> None:
    view = submitted_job(new_job(delay=60.0, payload=b'{"x":1}', tags=("t",)), NOW, NOW + timedelta(seconds=60))
    shown = msgspec.json.decode(msgspec.json.encode(view))

    assert shown["status"] == "scheduled"
    assert shown["payload"] == {"x": 1}
    assert shown["run_at"] == "2030-01-01T00:01:00Z"
    assert shown["created_at"] == shown["updated_at"] == "2030-01-01T00:00:00Z"
    assert shown["attempt"] == 0
    assert "attempts" not in shown
