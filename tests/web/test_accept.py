"""Content negotiation and If-None-Match."""

from __future__ import annotations

import pytest

from jobflow.web.accept import matches, prefers

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PROMETHEUS = b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        (b"*/*", False),
        (b"", False),
        (b"application/json", False),
        (b"text/html", True),
        (BROWSER, True),
        (b"text/html, application/json", False),  # equal: JSON
        (b"text/html;q=0.9, application/json", False),
        (b"text/html, application/json;q=0.9", True),
        (b"TEXT/HTML ; q=1.0 , */* ; q=0.5", True),
        (b"text/html;q=0", False),
        (b"text/*", False),
        (b"text/html;q=nonsense", True),
        (b";;;,,,q=1", False),
    ],
)
def test_html_only_when_preferred(accept: bytes | None, wanted: bool) -> None:
    assert prefers(accept, ("text/html",)) is wanted


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS, True),
        (b"text/plain; version=0.0.4", True),
        (b"application/openmetrics-text", True),
        (BROWSER, False),
    ],
)
def test_prometheus_is_recognised(accept: bytes, wanted: bool) -> None:
    assert prefers(accept, ("text/plain", "application/openmetrics-text")) is wanted


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (None, False),
        (b'"abc"', True),
        (b'W/"abc"', True),
        (b'"x", "abc"', True),
        (b"*", True),
        (b'"abcd"', False),
        (b"abc", False),
    ],
)
def test_if_none_match(header: bytes | None, fits: bool) -> None:
    assert matches(header, '"abc"') is fits
