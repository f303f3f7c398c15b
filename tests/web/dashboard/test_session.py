"""Cookies that only we can make, and what they are worth."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jobflow.web.call import Visit
from jobflow.web.dashboard import session as module
from jobflow.web.dashboard.session import SIGNED_IN, VISITOR, Session, Sessions, is_page

SESSIONS = Sessions("a-token-of-visible-characters")


def visit(cookie: str = "", method: str = "GET", path: str = "/dashboard", **headers: str) -> Visit:
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    parts: Any = None
    return Visit(parts, {"method": method, "path": path}, given | {b"cookie": cookie.encode()}, "r-1")


def cookie_for(session: Session) -> str:
    return f"other=1; {SESSIONS.cookie}={session.value}"


@pytest.mark.parametrize("kind", [VISITOR, SIGNED_IN])
def test_a_cookie_is_known_again(kind: str) -> None:
    session = SESSIONS.make(kind)

    assert SESSIONS.find(visit(cookie_for(session))) == session
    assert session.signed_in == (kind == SIGNED_IN)
    assert SESSIONS.make(kind) != session


def test_other_processes_know_it_and_other_instances_do_not() -> None:
    cookie = cookie_for(SESSIONS.make(SIGNED_IN))

    assert Sessions("a-token-of-visible-characters").find(visit(cookie))
    assert Sessions("another-token-of-characters").find(visit(cookie)) is None
    assert Sessions("another-token-of-characters").cookie != SESSIONS.cookie


def test_forged_cookies_are_nothing() -> None:
    kind, expires, nonce, signature = SESSIONS.make(VISITOR).value.split(".")
    later = str(int(expires) + 1)
    for value in (
        "", "...", "x", f"{SIGNED_IN}.{expires}.{nonce}.{signature}", f"{kind}.{later}.{nonce}.{signature}",
        f"{kind}.{expires}.{nonce}.", f"{kind}.{expires}.{nonce}.{signature[:-1]}", f"{kind}.{expires}.{nonce}.é",
    ):  # fmt: skip
        assert SESSIONS.find(visit(f"{SESSIONS.cookie}={value}")) is None, value


def test_a_login_ends_after_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = cookie_for(SESSIONS.make(SIGNED_IN))
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 12 * 3600 - 60)
    assert SESSIONS.find(visit(cookie))
    monkeypatch.setattr(module.time, "time", lambda: now + 12 * 3600 + 60)
    assert SESSIONS.find(visit(cookie)) is None


def test_a_signed_in_browser_may_read_everything_and_send_the_dashboards_forms() -> None:
    signed_in, visitor = cookie_for(SESSIONS.make(SIGNED_IN)), cookie_for(SESSIONS.make(VISITOR))

    assert SESSIONS.admits(visit(signed_in, "GET", "/jobs"))
    assert SESSIONS.admits(visit(signed_in, "GET", "/events"))
    assert SESSIONS.admits(visit(signed_in, "POST", "/dashboard/create"))
    assert not SESSIONS.admits(visit(signed_in, "POST", "/jobs"))
    assert not SESSIONS.admits(visit(signed_in, "DELETE", "/jobs/x"))
    assert not SESSIONS.admits(visit(visitor, "GET", "/dashboard"))
    assert SESSIONS.admits(visit("", "POST", "/login"))
    assert SESSIONS.admits(visit("", "GET", "/static/app.css"))


def test_a_form_token_belongs_to_one_session() -> None:
    one, other = SESSIONS.make(VISITOR), SESSIONS.make(VISITOR)

    assert SESSIONS.form_token(one) == SESSIONS.form_token(one) != SESSIONS.form_token(other)


def test_scripts_cannot_read_the_cookie_and_https_keeps_it_to_itself() -> None:
    name, plain = SESSIONS.set_cookie(SESSIONS.make(SIGNED_IN), visit())
    _, secure = SESSIONS.set_cookie(SESSIONS.make(SIGNED_IN), visit(x_forwarded_proto="https"))
    _, gone = SESSIONS.drop_cookie(visit())

    assert name == b"set-cookie"
    assert plain.endswith(b"; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax")
    assert secure.endswith(b"; Secure")
    assert b"Max-Age=0" in gone


def test_which_paths_are_pages() -> None:
    assert all(is_page(path) for path in ("/dashboard", "/dashboard/jobs/x", "/login", "/logout"))
    assert not any(is_page(path) for path in ("/", "/jobs", "/dashboardx", "/login/x", "/static/app.css"))
