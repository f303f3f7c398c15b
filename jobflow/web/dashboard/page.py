"""From a template to an answer: what every page has in common, and how errors look to a person.

A page includes the fragment that it later refreshes: asked by htmx, the same URL answers the fragment alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Collection
from functools import partial, wraps
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from jobflow import __version__, errors
from jobflow.lifecycle import Status
from jobflow.paths import resource
from jobflow.web.accept import prefers
from jobflow.web.call import Answer, Call, Headers, Visit
from jobflow.web.dashboard import charts, filters
from jobflow.web.dashboard.session import VISITOR, Session, Sessions, cookie_of, is_page
from jobflow.web.dashboard.shared import Shared
from jobflow.web.dashboard.static import url_of
from jobflow.web.limits import RateLimiter
from jobflow.web.parts import Parts
from jobflow.web.problems import INTERNAL, kind_of, problem

T = TypeVar("T")
Handler = Callable[..., Awaitable[ASGIApp]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS: Headers = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Accept, Cookie, HX-Request, HX-Request-Type"),
]
PTAG = b"hx-ptag"  # of a fragment: its hash, which htmx sends back
SAID = "jobflow_said"  # the cookie that carries a sentence over a redirect
SAID_MAX = 400  # characters
THEMES = ("light", "dark")
LOGINS = 10  # tries to log in for each client and minute


class Fragment:
    """A part of a page as tabs of several people share it: with a stand-in for the form token, a session's secret."""

    __slots__ = ("_hash", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._hash = hashlib.blake2b(body, digest_size=9).hexdigest()

    def tag(self, token: str) -> bytes:
        return f"{self._hash}{token[:8]}".encode()


class Part(Answer):
    """The answer to one of them."""

    __slots__ = ("fragment",)

    def __init__(self, status: int, body: bytes, headers: Headers, fragment: Fragment) -> None:
        super().__init__(status, body, headers)
        self.fragment = fragment


class Pages:
    """Templates, sessions and what all tabs share, built once."""

    def __init__(self, parts: Parts, paths: Collection[str]) -> None:
        """``paths``: of all routes; without /events pages poll."""
        settings = parts.settings
        self.shared = Shared(lambda: parts.hub.round)
        self.stand_in = secrets.token_hex(32)  # for the form token in what tabs of several people share
        self.sessions = Sessions(settings.admin_token or settings.database_url)
        self.locked = bool(settings.admin_token)
        self.logins = RateLimiter(
            parts.broker.take, limit=LOGINS, window=60, live_processes=lambda: parts.engine.live_processes
        )
        self.templates = Environment(
            loader=FileSystemLoader(resource("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.filters |= filters.FILTERS
        self.templates.globals |= {
            "Status": Status,
            "asset": url_of,
            "locked": self.locked,
            "sparkline": charts.sparkline,
            "stream": "/events" in paths,
            "docs": "/docs" if "/docs" in paths else "/openapi.json",
            "version": __version__,
        }

    def render(self, visit: Visit, name: str, status: int = 200, *, fragment: str = "", **context: Any) -> Answer:
        """A page, or only its fragment when a part of a page is asked for.

        name: of the file in templates/; fragment: of the file in templates/partials/ that it includes.
        """
        session, headers = self.session(visit)
        # An error keeps it for the next page (and has room for one cookie only).
        said = unquote(cookie_of(visit, SAID))[:SAID_MAX] if status < 400 else ""
        if said:
            headers.append((b"set-cookie", f"{SAID}=; Path=/; Max-Age=0".encode()))
        token = self.sessions.form_token(session)
        if fragment and wants_part(visit):
            # It knows nothing of who asks: many may share it.
            text = self.templates.get_template(f"partials/{fragment}.html").render(
                csrf=self.stand_in, path=visit.path, **context
            )
            if said:
                text += self.templates.get_template("partials/said.html").render(said=said)
            return self.part(Fragment(text.encode()), token, status, headers)
        theme = cookie_of(visit, "jobflow_theme")
        text = self.templates.get_template(f"{name}.html").render(
            csrf=token,
            signed_in=session.signed_in,
            theme=theme if theme in THEMES else "",
            path=visit.path,
            said=said,
            **context,
        )
        return Answer(status, text.encode(), [*HEADERS, *headers])

    def part(self, fragment: Fragment, token: str, status: int = 200, headers: Headers | None = None) -> Part:
        """A fragment with a session's own form token in it."""
        tag = [(PTAG, fragment.tag(token))] if status == 200 else []
        body = fragment.body.replace(self.stand_in.encode(), token.encode())
        return Part(status, body, [*HEADERS, *tag, *(headers or ())], fragment)

    def session(self, visit: Visit) -> tuple[Session, Headers]:
        """The session of a browser, and the cookie it needs when it is new."""
        if found := self.sessions.find(visit):
            return found, []
        made = self.sessions.make(VISITOR)
        return made, [self.sessions.set_cookie(made, visit)]

    def failure(self, error: Exception, visit: Visit) -> Answer:
        """An error as a page, or as a notice on the page that htmx refreshes."""
        kind = kind_of(error)
        if kind.status == 401:
            return leave(visit, f"/login?next={quote(visit.target)}" if visit.method == "GET" else "/login")
        headers = [pair for pair in problem(error, visit).headers if pair[0] not in (b"content-type", b"cache-control")]
        if b"hx-request" in visit.headers:
            headers += [(b"hx-retarget", b"#notice"), (b"hx-reswap", b"innerHTML")]
        answer = self.render(
            visit,
            "error",
            kind.status,
            fragment="failure",
            title=kind.title,
            code=kind.status,
            detail=_sentence(error, kind.status, visit),
            faults=error.faults if isinstance(error, errors.Invalid) else (),
            what_to_do=WHAT_TO_DO.get(kind.status, ""),
            request_id=visit.request_id,
        )
        answer.headers = [*answer.headers, *headers]
        return answer


WHAT_TO_DO = {
    403: "Load the page again and repeat what you did.",
    404: "Look for it in the list of jobs: it may have been deleted.",
    409: "Load the page again to see how it is now.",
    410: "Raise JOBFLOW_RETENTION_COMPLETED to keep jobs longer.",
    422: "Go back and change what is named above.",
    500: "This is a bug of ours. The log has it under the request id below.",
    503: "Nothing is lost: accepted jobs are in Postgres. This page tries again by itself.",
}


def _sentence(error: Exception, status: int, visit: Visit) -> str:
    if kind_of(error) is INTERNAL:
        return "Something went wrong while this page was made."
    if isinstance(error, HTTPException):
        return f"{visit.method} is not possible here." if status == 405 else "There is no such page."
    text = str(error)
    return text if text.endswith((".", "…")) else f"{text}."


def show(request: Call, name: str, status: int = 200, *, fragment: str = "", **context: Any) -> Answer:
    """Render a page for a route handler."""
    return pages_of(request).render(request.visit, name, status, fragment=fragment, **context)


def live(page: Handler) -> Handler:
    """Let all tabs that ask for the same fragment share it, which must not depend on who asks; 304 for those that have it."""

    @wraps(page)
    async def fragment(request: Call, **path: str) -> ASGIApp:
        pages, visit = pages_of(request), request.visit
        session, done = pages.sessions.find(visit), cookie_of(visit, SAID)
        if done:
            pages.shared.forget()  # its person must see at once what came of it
        if session is None or done or not wants_part(visit):
            return await page(request, **path)
        answer = await pages.shared((visit.path, request.query_bytes), partial(page, request, **path))
        if not isinstance(answer, Part):
            return answer
        token = pages.sessions.form_token(session)
        tag = answer.fragment.tag(token)
        if visit.headers.get(PTAG) == tag:
            return Answer(304, b"", [*HEADERS[1:], (PTAG, tag)])
        return pages.part(answer.fragment, token)

    return fragment


async def shared(request: Call, key: str, read: Callable[[], Awaitable[T]]) -> T:
    """What several fragments show; a whole page reads it anew."""
    return await (pages_of(request).shared(key, read) if wants_part(request.visit) else read())


def pages_of(request: Call) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


def see(url: str, said: str = "", *extra: tuple[bytes, bytes]) -> Answer:
    """303 to a page that shows the sentence ``said``; htmx follows it, too, and gets that page's fragment."""
    headers: Headers = [(b"location", url.encode("latin-1")), (b"cache-control", b"no-store"), *extra]
    if said:
        cookie = f"{SAID}={quote(said[:SAID_MAX])}; Path=/; Max-Age=20; HttpOnly; SameSite=Lax"
        headers.append((b"set-cookie", cookie.encode()))
    return Answer(303, b"", headers)


def leave(visit: Visit, url: str, said: str = "") -> Answer:
    """303 to another page as a whole, also when htmx asked for a part of this one."""
    answer = see(url, said)
    if b"hx-request" in visit.headers:
        answer.status = 200
        answer.headers = [(b"hx-redirect", url.encode("latin-1")), *answer.headers[1:]]
    return answer


def wants_part(visit: Visit) -> bool:
    return (
        b"hx-request" in visit.headers
        and visit.headers.get(b"hx-request-type") != b"full"
        and b"hx-history-restore-request" not in visit.headers
    )


def wants_page(visit: Visit, error: Exception) -> bool:
    """Whether an error should be a page: a browser asks, for one of the dashboard's paths.

    Whatever a browser opens before its person has logged in leads to the login, the API's own paths too.
    """
    opened = visit.method == "GET" and kind_of(error).status == 401
    return (opened or visit.path in ("/", "/docs") or is_page(visit.path)) and asks_for_html(visit)


def asks_for_html(visit: Visit) -> bool:
    return prefers(visit.headers.get(b"accept"), ("text/html", "application/xhtml+xml"))
