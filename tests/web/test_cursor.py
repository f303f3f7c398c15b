"""Cursors fit the list they came from and nothing else."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobflow.errors import Malformed
from jobflow.listing import JobFilter
from jobflow.web import cursor

LAST = UUID("0190b5d2-7c1e-7d3a-9f00-2b6c1d4e5f60")
FAILED = JobFilter(statuses=("failed",))


@given(st.uuids())
def test_a_cursor_leads_back_to_its_id(last: UUID) -> None:
    text = cursor.encode(last, FAILED)

    assert len(text) == 32
    assert cursor.decode(text, FAILED) == last


@pytest.mark.parametrize(
    "other", [JobFilter(), JobFilter(statuses=("failed", "pending")), JobFilter(statuses=("failed",), type="a")]
)
def test_another_filter_is_refused(other: JobFilter) -> None:
    with pytest.raises(Malformed, match="other filters"):
        cursor.decode(cursor.encode(LAST, FAILED), other)


@given(st.text(max_size=50))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        cursor.decode(text, FAILED)


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + "A", lambda c: "B" + c[1:], lambda c: c[:-1] + "_", str.lower]
)
def test_a_changed_cursor_is_refused(change: object) -> None:
    text = cursor.encode(LAST, FAILED)
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    with pytest.raises(Malformed):
        cursor.decode(changed, FAILED)
