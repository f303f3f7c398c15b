"""Query parameters: filters and paging, strictly."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from jobflow.errors import Malformed
from jobflow.listing import JobFilter
from jobflow.web.problems import InvalidQuery
from jobflow.web.query import Paging, Query, no_query, read_listing


def asked(query: bytes) -> Any:
    return SimpleNamespace(query_bytes=query)


def test_nothing_asked_is_the_first_fifty_of_all() -> None:
    assert read_listing(asked(b"")) == (JobFilter(), Paging(limit=50, offset=0, cursor=None))


def test_every_filter_is_read() -> None:
    wanted, paging = read_listing(
        asked(
            b"status=failed&status=completed&status=failed&type=a.b&queue=q&tag=t%C3%A9&error=Time+out"
            b"&created_after=2030-01-01T00:00:00Z&created_before=2030-01-01T02:00:00%2B01:00"
            b"&payload.user.id=42&payload.name=&limit=200&offset=10000"
        )
    )

    assert wanted == JobFilter(
        statuses=("completed", "failed"),
        type="a.b",
        queue="q",
        tag="té",
        error="Time out",
        created_after=datetime(2030, 1, 1, tzinfo=UTC),
        created_before=datetime(2030, 1, 1, 1, tzinfo=UTC),
        payload=((("name",), ""), (("user", "id"), "42")),
    )
    assert paging == Paging(limit=200, offset=10_000)


def test_the_order_of_parameters_does_not_matter_to_a_cursor() -> None:
    first, _ = read_listing(asked(b"status=failed&status=pending&payload.a=1&payload.b=2"))
    second, _ = read_listing(asked(b"payload.b=2&status=pending&payload.a=1&status=failed"))

    assert first == second


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (b"limit=0", ["limit"]),
        (b"limit=201", ["limit"]),
        (b"limit=-1", ["limit"]),
        (b"limit=ten", ["limit"]),
        (b"limit=1e2", ["limit"]),
        (b"limit=%D9%A3", ["limit"]),  # a digit, but not one of ours
        (b"limit=", ["limit"]),
        (b"limit=9999999999999999999999", ["limit"]),
        (b"limit=1&limit=2", ["limit"]),
        (b"offset=10001", ["offset"]),
        (b"offset=-1", ["offset"]),
        (b"offset=0&cursor=x", ["cursor"]),
        (b"status=done", ["status"]),
        (b"status=", ["status"]),
        (b"status=failed,pending", ["status"]),
        (b"type=a%20b", ["type"]),
        (b"queue=Upper", ["queue"]),
        (b"queue=default%0A", ["queue"]),
        (b"tag=", ["tag"]),
        (b"tag=%00", ["tag"]),
        (b"tag=" + b"x" * 201, ["tag"]),
        (b"error=a%00b", ["error"]),
        (b"created_after=yesterday", ["created_after"]),
        (b"created_after=2030-01-01T00:00:00", ["created_after"]),
        (b"created_before=2030-01-01T00:00:00+01:00", ["created_before"]),  # + is a blank here
        (b"payload.=1", ["payload."]),
        (b"payload.a..b=1", ["payload.a..b"]),
        (b"payload.a=%00", ["payload.a"]),
        (b"payload.a=1&payload.a=2", ["payload.a"]),
        (b"payload." + b"a." * 16 + b"a=1", ["payload." + "a." * 16 + "a"]),
        (b"&".join(b"payload.a%d=1" % n for n in range(11)), ["payload."]),
        (b"Status=failed", ["Status"]),
        (b"stauts=failed&limit=0&offset=x", ["stauts", "limit", "offset"]),
        (b"%00=1", ["\ufffd"]),
    ],
)
def test_what_does_not_fit_is_named(query: bytes, names: list[str]) -> None:
    with pytest.raises(InvalidQuery) as refused:
        read_listing(asked(query))

    assert [fault.pointer for fault in refused.value.faults] == names


@pytest.mark.parametrize("query", [b"tag=%FF", b"tag=%ED%A0%80", b"\xff=1", b"&".join([b"tag=a"] * 101)])
def test_what_cannot_be_read_is_malformed(query: bytes) -> None:
    with pytest.raises(Malformed):
        read_listing(asked(query))


def test_a_path_that_fixes_the_status_has_no_such_parameter() -> None:
    wanted, _ = read_listing(asked(b"type=a"), ("dead_letter",))
    assert wanted.statuses == ("dead_letter",)

    with pytest.raises(InvalidQuery):
        read_listing(asked(b"status=failed"), ("dead_letter",))


def test_paths_without_parameters_name_the_one_that_came() -> None:
    no_query(asked(b""))
    with pytest.raises(InvalidQuery, match="verbose"):
        no_query(asked(b"verbose"))


def test_twenty_faults_are_enough() -> None:
    query = Query(b"&".join(b"x%d=1" % n for n in range(50)), ())
    with pytest.raises(InvalidQuery) as refused:
        query.finish()

    assert len(refused.value.faults) == 20
