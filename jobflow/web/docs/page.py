"""The page at /docs."""

from __future__ import annotations

import re
from functools import lru_cache

from litestar import get
from litestar.types import ASGIApp
from markupsafe import Markup, escape

from jobflow.web.call import Call, Visit
from jobflow.web.dashboard.page import show
from jobflow.web.docs.examples import ID, PROBLEM, written
from jobflow.web.docs.reference import read
from jobflow.web.openapi import Operation
from jobflow.web.query import no_query

_CODE = re.compile(r"`+([^`]+)`+")
_read = lru_cache(4)(read)  # the description never changes while the process runs


@get("/docs", doc=Operation("docs", "This documentation.", {200: "text/html"}, errors=(422,)))
async def docs(request: Call) -> ASGIApp:
    no_query(request)
    settings = request.parts.settings
    return show(
        request,
        "docs",
        reference=_read(request.app.state.openapi),
        origin=origin_of(request.visit),
        rate=f"{settings.rate_limit_max:,} POSTs in {settings.rate_limit_window:g} s",
        coded=coded,
        example_id=ID,
        problem=written(PROBLEM),
    )


def origin_of(visit: Visit) -> str:
    """Scheme and host as the client has them; the door has checked the host, a proxy before us knows the scheme."""
    scheme = "https" if visit.headers.get(b"x-forwarded-proto") == b"https" else "http"
    return f"{scheme}://{visit.headers[b'host'].decode('latin-1')}"


def coded(text: str) -> Markup:
    """Plain text with `code` in it."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  (escaped)


ROUTES = [docs]
