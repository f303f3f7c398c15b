"""Text for a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from jobflow.commands import table
from jobflow.lifecycle import Status


def test_every_status_has_a_colour() -> None:
    assert set(table.COLOURS) == set(Status)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s ago"),
        (0.4, "0 s ago"),
        (-0.5, "0 s ago"),
        (59, "59 s ago"),
        (90, "2 m ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
        (-3600, "in 1 h"),
    ],
)
def test_times_are_told_in_the_largest_unit(seconds: float, expected: str) -> None:
    now = datetime.fromisoformat("2026-01-31T12:00:00+00:00")
    assert table.ago((now - timedelta(seconds=seconds)).isoformat(), now) == expected


def test_no_time_is_no_words() -> None:
    assert table.ago(None, table.now()) == ""


def test_one_line_without_control_characters() -> None:
    assert table.clean("a\n\tb \x1b[31mc\u202e\x00") == "a b \ufffd[31mc\ufffd\ufffd"
    assert table.clean_block("a\n    b\x07\n\nc") == "a\n    b\ufffd\nc"


def test_columns_are_as_wide_as_they_must_be() -> None:
    lines = table.table(("A", "STATUS", "NOTE"), [("long one", "failed", "x" * 300), ("b", "pending", "")], 1)
    heads, first, second = click.unstyle(lines).splitlines()
    assert heads.index("NOTE") == first.index("x") == len("long one  pending  ")
    assert first.endswith("x" * 300)
    assert second == "b         pending"


def test_a_terminal_gets_one_line_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    plain = click.unstyle(table.table(("A", "S", "NOTE"), [("a", "failed", "n" * 100)], 1))
    assert len(plain.splitlines()[1]) == 40
    assert plain.endswith("…")


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_when_somebody_asks_for_it(settings: dict[str, str], coloured: bool) -> None:
    @click.command()
    def shown() -> None:
        table.show(table.status("failed"))

    result = CliRunner().invoke(shown, color=True, env={"NO_COLOR": None} | settings)
    assert ("\x1b" in result.stdout) is coloured
    assert "failed" in result.stdout
