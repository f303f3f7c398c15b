"""How values look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from markupsafe import Markup

from jobflow.lifecycle import MOVES, Status
from jobflow.web.dashboard import filters

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0 ms"), (-5, "0 ms"), (0.25, "250 ms"), (1, "1.0 s"), (9.94, "9.9 s"), (59.9, "59 s"),
        (60, "1 m"), (200, "3 m 20 s"), (3_600, "1 h"), (3_605, "1 h"), (187_200, "2 d 4 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float | None, text: str) -> None:
    assert filters.duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.4, "now"),
        (12, "12 s ago"),
        (-12, "in 12 s"),
        (119, "1 m ago"),
        (-7_300, "in 2 h"),
        (90_000, "1 d ago"),
    ],
)
def test_ages_have_one(seconds: float, text: str) -> None:
    assert filters.age(NOW - timedelta(seconds=seconds), NOW).replace("\u00a0", " ") == text


def test_a_time_tells_the_clock_too() -> None:
    text = filters.when(NOW)

    assert 'datetime="2030-01-31T12:00:00Z"' in text
    assert 'title="2030-01-31 12:00:00 UTC"' in text
    assert filters.when(None) == "–"
    assert filters.clock(None) == "–"


def test_every_state_and_every_ending_has_its_looks() -> None:
    for state in [*Status, *MOVES[Status.PROCESSING]]:
        tone, icon, means = filters.look(state)
        assert tone
        assert icon
        assert means
        assert filters.words(state) in filters.badge(state)


def test_what_is_put_into_markup_is_escaped() -> None:
    assert filters.icon('"><script>') == Markup(
        '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="&#34;&gt;&lt;script&gt;"/></svg>'
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_345, "12,345"), (0.25, "0.25"), (1.26, "1.3"), (0.0, "0"), (2_000.4, "2,000")]
)
def test_numbers_are_readable(value: float, text: str) -> None:
    assert filters.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999_999, "999,999"), (1_234_567, "1.2 M"), (2_345_678_901, "2,346 M")]
)
def test_large_figures_are_short(value: int, text: str) -> None:
    assert filters.short(value).replace("\u00a0", " ") == text


def test_one_line_of_a_long_text() -> None:
    assert filters.one_line("\n one\ntwo") == "one"
    assert filters.one_line("x" * 200) == "x" * 159 + "…"


def test_json_keeps_its_numbers_and_is_cut() -> None:
    shown = filters.pretty(msgspec.Raw(b'{"big":12345678901234567890,"price":1.10}'))
    assert shown.text == '{\n  "big": 12345678901234567890,\n  "price": 1.10\n}'
    assert (shown.cut, shown.bytes) == (False, 41)

    long = filters.pretty(b'["' + b"x" * 20_000 + b'"]')
    assert long.cut
    assert len(long.text) == filters.SHOWN


def test_a_time_that_has_come_is_past() -> None:
    now = datetime.now(UTC)
    assert filters.past(now - timedelta(seconds=1))
    assert not filters.past(now + timedelta(seconds=60))
