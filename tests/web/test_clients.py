"""Who is counted."""

from __future__ import annotations

import ipaddress

import pytest

from jobflow.web.clients import client_of

PROXIES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("9.9.9.9", None, "9.9.9.9"),
        ("9.9.9.9", b"1.1.1.1", "9.9.9.9"),  # not a proxy of ours: what it says is worth nothing
        ("10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", b"6.6.6.6, 1.1.1.1", "1.1.1.1"),  # what stands left of the first stranger was invented by it
        ("10.0.0.1", b"6.6.6.6, 1.1.1.1, 10.0.0.7", "1.1.1.1"),
        ("10.0.0.1", b"10.0.0.9,10.0.0.8", "10.0.0.9"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"1.1.1.1, unknown", "10.0.0.1"),
        ("10.0.0.1", b"1.1.1.1:5000", "1.1.1.1"),
        ("10.0.0.1", b"[2001:db8:1:2::3]:443", "2001:db8:1:2::/64"),
        ("10.0.0.1", b"2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("10.0.0.1", b"\xff\xfe", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("::ffff:9.9.9.9", None, "9.9.9.9"),
        ("::ffff:10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("fe80::1%eth0", None, "fe80::/64"),
        ("fd00::1", b"1.1.1.1", "1.1.1.1"),
        ("", None, "local"),
        ("testclient", b"1.1.1.1", "testclient"),
    ],
)
def test_the_nearest_address_that_is_not_ours_is_counted(peer: str, forwarded: bytes | None, client: str) -> None:
    assert client_of(peer, forwarded, PROXIES) == client


def test_without_trusted_proxies_the_header_is_ignored() -> None:
    assert client_of("10.0.0.1", b"1.1.1.1", []) == "10.0.0.1"
