"""Sparklines: numbers in, SVG out."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from jobflow.web.dashboard.charts import HEIGHT, WIDTH, sparkline


@pytest.mark.parametrize("values", [[], [0], [5], [0, 0, 0], [1, 5, 3], [10**9] * 60])
def test_a_line_stays_inside_its_box(values: list[int]) -> None:
    root = ET.fromstring(sparkline(values, "Jobs"))
    line = root[1].attrib["d"].removeprefix("M")
    for point in line.split("L"):
        x, y = map(float, point.split())
        assert 0 <= x <= WIDTH
        assert 0 < y < HEIGHT


def test_it_says_in_words_what_it_shows() -> None:
    assert 'aria-label="Jobs: 3,000 now, at most 5,000"' in sparkline([1, 5_000, 3_000], "Jobs")
    assert "nothing yet" in sparkline([], "Jobs")
    assert "<script>" not in sparkline([1], "<script>")
    assert "style" not in sparkline([1, 2], "Jobs")
