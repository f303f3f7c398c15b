"""Bulk bodies: cut cheaply, checked item by item, without keeping the loop."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobflow.client import JobRequest
from jobflow.errors import Fault, Invalid, Malformed
from jobflow.lifecycle import NewJob
from jobflow.web import bulk
from jobflow.web.bulk import prepare_all, split
from jobflow.web.idempotency import Fingerprint
from tests.web.stubs import new_job


def prepare(request: JobRequest) -> NewJob:
    if request.payload.get("x") == "unfit":
        raise Invalid(Fault("/payload/x", "does not fit the type"))
    return new_job(type=request.type)


@pytest.mark.parametrize("raw", [b'{"jobs":[{"a":1},{"b":[2]}]}', b' {\n"jobs" : [ {"a":1} , {"b":[2]} ]\n}\n'])
def test_items_are_cut_as_they_are(raw: bytes) -> None:
    assert [bytes(item).strip() for item in split(raw)] == [b'{"a":1}', b'{"b":[2]}']


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b'{"jobs":[{}', b'{"jobs":[{}]', b'{"jobs":[{},]}', b'{"jobs":[}]}', b'{"jobs":[]}x', b"\xff"],
)
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        split(raw)


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b"[]", ""),
        (b"null", ""),
        (b"{}", "/jobs"),
        (b'{"jobs":{}}', "/jobs"),
        (b'{"jobs":null}', "/jobs"),
        (b'{"jobs":[]}', "/jobs"),
        (b'{"jobs":[' + b",".join([b"1"] * 10_001) + b"]}", "/jobs"),
        (b'{"jobs":[{}],"jobs":[{}]}', "/jobs"),
        (b'{"jobs":[{}],"atomic":true}', "/atomic"),
        (b'{"atomic":true,"jobs":[{}]}', "/atomic"),
        (b'{"jobs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "/jobs"),
        (b"[" * 100_000, ""),
        (b'{"jobs":[{"type":"a"},{"type":"a","payload":{"x":NaN}}]}', "/jobs/1/payload/x"),
        (b'{"jobs":[{"type":"\\ud800"}]}', "/jobs/0/type"),
    ],
)
def test_other_shapes_are_named(raw: bytes, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        split(raw)

    assert refused.value.faults[0].pointer == pointer


@given(
    st.binary(max_size=100)
    | st.lists(st.sampled_from([b"{", b"}", b'"jobs"', b":", b"[", b"]", b",", b"1", b" "])).map(b"".join)
)
def test_whatever_comes_nothing_else_happens(raw: bytes) -> None:
    try:
        split(raw)
    except (Malformed, Invalid):
        return
    assert list(msgspec.json.decode(raw)) == ["jobs"]


async def test_a_bad_item_names_its_index() -> None:
    body = b'{"jobs":[{"type":"a"},{"type":"a","payload":{"x":"unfit"}},{"type":"a","payload":{"y":1,"y":2}},{"type":""},7]}'
    with pytest.raises(Invalid) as refused:
        await prepare_all(split(body), prepare, None)

    assert [fault.pointer for fault in refused.value.faults] == [
        "/jobs/1/payload/x",
        "/jobs/2/payload/y",
        "/jobs/3/type",
        "/jobs/4",
    ]


async def test_an_unreadable_item_names_its_index() -> None:
    with pytest.raises(Malformed, match="Job 1: "):
        await prepare_all(split(b'{"jobs":[{"type":"a"},{"type":"\xff"}]}'), prepare, None)


async def test_one_item_is_no_larger_than_a_single_job() -> None:
    item = b'{"type":"a","payload":{"x":"' + b"x" * bulk.JOB_BYTES + b'"}}'
    with pytest.raises(Invalid) as refused:
        await prepare_all(split(b'{"jobs":[{"type":"a"},' + item + b"]}"), prepare, None)

    assert refused.value.faults[0] == ("/jobs/1", "is larger than 256 KiB")


async def test_faults_stop_at_twenty() -> None:
    with pytest.raises(Invalid) as refused:
        await prepare_all(split(b'{"jobs":[' + b",".join([b"{}"] * 10_000) + b"]}"), prepare, None)

    assert len(refused.value.faults) == 20


async def test_the_fingerprint_is_of_the_items_in_their_order() -> None:
    async def fingerprint(body: bytes) -> bytes:
        hashed = Fingerprint("POST", "/jobs/bulk")
        await prepare_all(split(body), prepare, hashed)
        return hashed.digest()

    one = await fingerprint(b'{"jobs":[{"type":"a","priority":1},{"type":"b"}]}')
    assert one == await fingerprint(b'{ "jobs":[{"priority":1, "type":"a"} ,{"type":"b"}]}')
    assert one != await fingerprint(b'{"jobs":[{"type":"b"},{"type":"a","priority":1}]}')


async def test_others_get_their_turn_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(request: JobRequest) -> NewJob:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:
            pass
        return new_job()

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await prepare_all(split(b'{"jobs":[' + b",".join([b'{"type":"a"}'] * 200) + b"]}"), slow, None)
    task.cancel()

    assert turns >= 10  # 100 ms of work in slices of 4 ms
