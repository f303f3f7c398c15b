"""/login and /logout, where an admin token is set."""

from __future__ import annotations

import hmac

from litestar import get, post
from litestar.types import ASGIApp

from jobflow.web.call import Call
from jobflow.web.clients import sender_of
from jobflow.web.dashboard.address import local, read_pairs
from jobflow.web.dashboard.forms import read_form
from jobflow.web.dashboard.page import pages_of, see, show
from jobflow.web.dashboard.session import SIGNED_IN

HOME = "/dashboard"


@get("/login")
async def login(request: Call) -> ASGIApp:
    target = local(dict(read_pairs(request.query_bytes)).get("next", ""), HOME)
    session, _ = pages_of(request).session(request.visit)
    if session.signed_in or not pages_of(request).locked:
        return see(target)
    return show(request, "login", target=target, fault="")


@post("/login")
async def sign_in(request: Call) -> ASGIApp:
    """303 with a cookie for 12 hours, or the form again; 429 after ten tries in a minute from one client."""
    form = await read_form(request)
    pages, target = pages_of(request), local(form.text("next"), HOME)
    token = request.parts.settings.admin_token.encode()
    if not token:
        return see(target)
    sender = sender_of(request.scope, request.visit.headers, request.parts.settings.proxy_networks)
    verdict = await pages.logins.check("login " + sender)
    if not verdict.granted:
        again = show(
            request, "login", 429, target=target, fault=f"Too many tries. Wait {verdict.reset} s, then try again."
        )
        again.headers.append((b"retry-after", b"%d" % verdict.reset))
        return again
    if not hmac.compare_digest(form.text("token").strip().encode(), token):
        return show(request, "login", 403, target=target, fault="That is not the token.")
    return see(target, "", pages.sessions.set_cookie(pages.sessions.make(SIGNED_IN), request.visit))


@post("/logout")
async def sign_out(request: Call) -> ASGIApp:
    await read_form(request)
    return see("/login", "", pages_of(request).sessions.drop_cookie(request.visit))


ROUTES = [login, sign_in, sign_out]
