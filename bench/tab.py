"""Open tabs without a browser: each holds its stream of hints and fetches its region again as htmx would.

Per trigger ``throttle:1s`` (the last one is kept) and ``hx-sync: queue last``; bytes made beforehand, no HTTP library. A
process of its own, so that its processor time can be told apart. Says ``ready`` when all streams are open, ends with its
standard input, and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import uvloop

from bench.client import LENGTH
from bench.figures import own_cpu

PTAG = re.compile(rb"\r\nhx-ptag: *(\w+)", re.IGNORECASE)
EVENT = re.compile(rb"^event: (\w+)", re.MULTILINE)
REGION = re.compile(r'data-region hx-get="([^"]*)".*?hx-trigger="([^"]*)"', re.DOTALL)
THROTTLE = 1.0  # seconds


@dataclass
class Heard:
    """What all tabs have measured."""

    began: float = field(default_factory=time.time)
    sent: list[tuple[float, float]] = field(default_factory=list)  # when (clock), seconds until the whole answer
    statuses: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    hints: int = 0
    streams: int = 0


class Stream(asyncio.Protocol):
    """/events, held open."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab
        self._ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._tab.request("/events", "Accept: text/event-stream\r\n"))

    def data_received(self, data: bytes) -> None:
        if not self._ready:
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"no stream: {data[:500].decode()}")
            self._ready = True
            self._tab.heard.streams += 1
        for name in EVENT.findall(data):
            self._tab.hint(name)

    def connection_lost(self, error: Exception | None) -> None:
        self._tab.heard.streams -= 1


class Tab(asyncio.Protocol):
    """One page: the connection its region is fetched over."""

    def __init__(self, heard: Heard, port: int, path: str, topics: frozenset[bytes], cookie: str) -> None:
        self.heard = heard
        self._port, self._cookie = port, cookie
        self._topics = topics
        self._fetch = self.request(path, "HX-Request: true\r\nHX-Request-Type: partial\r\nAccept: text/html\r\n")
        self._ptag = b""
        self._received = b""
        self._flying = self._queued = False
        self._sent = 0.0
        self._throttled: dict[bytes, bool] = {}  # topic → whether another hint came meanwhile

    def request(self, path: str, more: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nCookie: {self._cookie}\r\n{more}"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
        ).encode()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        await loop.create_connection(lambda: Stream(self), "127.0.0.1", self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def hint(self, topic: bytes) -> None:
        if topic not in self._topics:
            return
        self.heard.hints += 1
        if topic in self._throttled:
            self._throttled[topic] = True
            return
        self._throttled[topic] = False
        asyncio.get_running_loop().call_later(THROTTLE, self._released, topic)
        self._trigger()

    def _released(self, topic: bytes) -> None:
        if self._throttled.pop(topic):
            self.hint(topic)

    def _trigger(self) -> None:
        if self._flying:
            self._queued = True
            return
        self._flying = True
        self._sent = time.perf_counter()
        ptag = b"HX-PTag: " + self._ptag + b"\r\n\r\n" if self._ptag else b"\r\n"
        self._transport.write(self._fetch[:-2] + ptag)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        status = self._received[9:12]
        length = LENGTH.search(self._received, 0, end)
        size = 0 if status == b"304" or length is None else int(length[1])
        if len(self._received) < end + 4 + size:
            return
        self.heard.sent.append((time.time(), time.perf_counter() - self._sent))
        self.heard.statuses[status.decode()] += 1
        self.heard.bytes += len(self._received)
        if found := PTAG.search(self._received, 0, end):
            self._ptag = found[1]
        self._received = b""
        self._flying = False
        if self._queued:
            self._queued = False
            self._trigger()

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.statuses["closed"] += 1


def visit(port: int, path: str, cookie: str | None) -> tuple[str, frozenset[bytes], str]:
    """Load a page as a browser does first: where its region asks, on which hints, and the session's cookie."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": "text/html"})
    if cookie:
        request.add_header("Cookie", cookie)
    with urllib.request.urlopen(request) as answer:
        region = REGION.search(answer.read().decode())
        made = answer.headers.get("set-cookie", "").partition(";")[0]
    if region is None:
        raise SystemExit(f"{path} has no region")
    topics = frozenset(re.findall(rb"(\w+) from:#live throttle", region[2].encode()))
    return region[1].replace("&amp;", "&"), topics, cookie or made


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--people", type=int, default=1, help="sessions that the tabs are spread over")
    parser.add_argument("paths", nargs="+", help="one tab for each")
    args = parser.parse_args()
    heard = Heard()
    cookies: dict[int, str] = {}
    for number, page in enumerate(args.paths):
        person = number % args.people
        path, topics, cookies[person] = visit(args.port, page, cookies.get(person))
        await Tab(heard, args.port, path, topics, cookies[person]).open()
    while heard.streams < len(args.paths):
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    cpu, began = own_cpu(), time.perf_counter()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    figures = {
        "sent": heard.sent,
        "statuses": heard.statuses,
        "megabytes": heard.bytes / 1e6,
        "hints": heard.hints,
        "streams": heard.streams,
        "cpu": own_cpu() - cpu,
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
