"""Whose request it is, for the rate limit: the peer, or who stands behind a proxy that we trust.

CVE-2025-59152 is what happens when X-Forwarded-For is believed from anyone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV6_PREFIX = 64  # what one customer usually gets


def client_of(peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> str:
    """The key that requests are counted under.

    peer: address of the socket, empty for a Unix socket.
    forwarded: X-Forwarded-For, several joined by commas in their order; counts only when ``peer`` is in ``trusted``.
        It is walked from the right to the first address that is not trusted; what stands left of it anyone can invent.
    Returns an IPv4 address, an IPv6 network of 64 bits, or the peer as it is when it is no address.
    """
    if forwarded is None or not trusted or not _is_trusted(_address(peer), trusted):
        return _key(peer)
    nearest = peer
    for hop in reversed(forwarded.decode("latin-1").split(",")):
        address = _address(_bare(hop.strip()))
        if address is None:
            break  # no address: whoever sent it stands behind the hop before
        nearest = str(address)
        if not _is_trusted(address, trusted):
            break
    return _key(nearest)


def sender_of(scope: Any, headers: Mapping[bytes, bytes], trusted: Sequence[Network]) -> str:
    """The same, of a request: its ASGI scope, and its headers joined."""
    client = scope["client"]
    return client_of(client[0] if client else "", headers.get(b"x-forwarded-for"), trusted)


@lru_cache(4096)
def _key(text: str) -> str:
    address = _address(text)
    if address is None:
        return text or "local"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # A socket for both families shows IPv4 peers like this; the zone says only by which card they came.
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def _bare(hop: str) -> str:
    """Without a port: ``[::1]:80`` and ``10.0.0.1:80`` are both written by proxies."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _is_trusted(address: Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)
