"""/static: files that never change under their URL, read once and sent as they are or as gzip."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from typing import NamedTuple

from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp

from jobflow.errors import NotFound
from jobflow.paths import resource
from jobflow.web.accept import matches
from jobflow.web.call import Answer, Call, Headers

TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
FOREVER = b"public, max-age=31536000, immutable"


class Asset(NamedTuple):
    type: bytes
    body: bytes
    zipped: bytes
    hash: str


@cache
def assets() -> dict[str, Asset]:
    """Every file that browsers may ask for, by its path below static/."""
    found = {}
    for path in sorted(resource("static").rglob("*")):
        if path.suffix in TYPES:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            name = path.relative_to(resource("static")).as_posix()
            found[name] = Asset(TYPES[path.suffix], body, gzip.compress(body, 9, mtime=0), digest)
    return found


def url_of(name: str) -> str:
    """The URL of a file, with its hash: another file, another URL."""
    return f"/static/{name}?v={assets()[name].hash}"


@get("/static/{name:path}")
async def asset(request: Call, name: FromPath[str]) -> ASGIApp:
    """Kept for ever when asked by its hash, checked again otherwise. Raises NotFound."""
    found = assets().get(name.lstrip("/"))
    if found is None:
        raise NotFound("There is no such file.")
    etag = f'"{found.hash}"'
    kept = FOREVER if request.query_bytes == b"v=" + found.hash.encode() else b"no-cache"
    headers: Headers = [(b"etag", etag.encode()), (b"cache-control", kept), (b"vary", b"Accept-Encoding")]
    if matches(request.visit.headers.get(b"if-none-match"), etag):
        return Answer(304, b"", headers)
    headers.append((b"content-type", found.type))
    if b"gzip" in request.visit.headers.get(b"accept-encoding", b""):
        return Answer(200, found.zipped, [*headers, (b"content-encoding", b"gzip")])
    return Answer(200, found.body, headers)


ROUTES = [asset]
