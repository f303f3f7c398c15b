"""Filters as people type them, and links that lead nowhere else."""

from __future__ import annotations

import pytest

from jobflow.web.dashboard import address


def test_empty_fields_are_dropped_and_others_become_the_apis() -> None:
    pairs = address.read_pairs(
        b"type=&queue=+mail+&payload=user.id%3D42&created_after=2030-01-31T12:00&created_before=2030-01-31T12:00:00Z"
    )
    assert address.tidy(pairs) == [
        ("queue", "mail"),
        ("payload.user.id", "42"),
        ("created_after", "2030-01-31T12:00:00Z"),
        ("created_before", "2030-01-31T12:00:00Z"),
    ]


def test_tidying_twice_changes_nothing_and_the_form_shows_it_again() -> None:
    pairs = address.tidy(address.read_pairs(b"payload=a.b%3Dc%3Dd&created_after=2030-01-31T12:00&error=x"))
    assert address.tidy(pairs) == pairs

    fields = address.typed(pairs)
    assert fields["payload"] == "a.b=c=d"
    assert fields["created_after"] == "2030-01-31T12:00"
    assert fields["queue"] == ""


def test_links_keep_the_filter_and_begin_at_the_first_page() -> None:
    pairs = [("status", "a"), ("status", "b"), ("type", "x y"), ("cursor", "c"), ("offset", "50")]
    assert address.link("/l", pairs) == "/l?status=a&status=b&type=x+y"
    assert address.link("/l", pairs, status=None) == "/l?type=x+y"
    assert address.link("/l", pairs, status="c") == "/l?type=x+y&status=c"
    assert address.link("/l", pairs, cursor="d") == "/l?status=a&status=b&type=x+y&cursor=d"
    assert address.link("/l", []) == "/l"


@pytest.mark.parametrize(
    "path", ["", "https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nb", "/é"]
)
def test_nobody_is_led_away(path: str) -> None:
    assert address.local(path, "/usual") == "/usual"


def test_our_own_paths_are_followed() -> None:
    assert address.local("/dashboard/jobs?type=a", "/usual") == "/dashboard/jobs?type=a"
