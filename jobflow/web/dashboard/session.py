"""Who a browser is: one signed cookie, and the token that binds a form to it.

Nothing is stored. Every process of an instance derives the same key, so a cookie of one counts at all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import NamedTuple

from jobflow.web.call import Visit

VISITOR, SIGNED_IN = "v", "s"
SECONDS = {VISITOR: 365 * 86_400, SIGNED_IN: 12 * 3_600}
FREE = ("/login", "/static/")  # what someone who is to log in must see
SAFE_METHODS = frozenset({"GET", "HEAD"})


class Session(NamedTuple):
    kind: str
    value: str  # of the cookie, which its form token is bound to

    @property
    def signed_in(self) -> bool:
        return self.kind == SIGNED_IN


class Sessions:
    """Makes and checks cookies."""

    def __init__(self, secret: str) -> None:
        """``secret``: the admin token, or something else that only this instance knows."""
        self._key = hmac.digest(secret.encode(), b"jobflow dashboard", "sha256")
        # Cookies do not know ports: instances beside each other on one machine must not overwrite each other's.
        self.cookie = "jobflow_" + hashlib.sha256(self._key).hexdigest()[:8]

    def make(self, kind: str) -> Session:
        stem = f"{kind}.{int(time.time()) + SECONDS[kind]}.{secrets.token_urlsafe(12)}"
        return Session(kind, f"{stem}.{self._sign('cookie', stem)}")

    def find(self, visit: Visit) -> Session | None:
        """The session of a request; None when its cookie is missing, forged or too old."""
        stem, _, signature = cookie_of(visit, self.cookie).rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("cookie", stem).encode()):
            return None
        kind, expires, _ = stem.split(".")
        return Session(kind, f"{stem}.{signature}") if int(expires) > time.time() else None

    def admits(self, visit: Visit) -> bool:
        """Whether a visit needs no bearer token: pages to log in with, and whatever a signed-in browser may ask.

        The API's own POSTs stay with the token: only the dashboard's forms prove that a page of ours sent them.
        """
        if visit.path.startswith(FREE):
            return True
        session = self.find(visit)
        return session is not None and session.signed_in and (visit.method in SAFE_METHODS or is_page(visit.path))

    def form_token(self, session: Session) -> str:
        return self._sign("form", session.value)

    def set_cookie(self, session: Session, visit: Visit) -> tuple[bytes, bytes]:
        return _cookie(self.cookie, session.value, SECONDS[session.kind], visit)

    def drop_cookie(self, visit: Visit) -> tuple[bytes, bytes]:
        return _cookie(self.cookie, "", 0, visit)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}:{text}".encode(), "sha256").hex()


def is_page(path: str) -> bool:
    """Whether a path is the dashboard's: its errors are pages, its forms are not counted by the rate limit."""
    return path in ("/dashboard", "/login", "/logout") or path.startswith("/dashboard/")


def cookie_of(visit: Visit, name: str) -> str:
    """The value of a cookie, empty when there is none."""
    for part in visit.headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _cookie(name: str, value: str, seconds: int, visit: Visit) -> tuple[bytes, bytes]:
    # We speak plain HTTP; a proxy before us says so when the browser spoke HTTPS to it.
    secure = "; Secure" if visit.headers.get(b"x-forwarded-proto") == b"https" else ""
    text = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    return b"set-cookie", text.encode("latin-1")
