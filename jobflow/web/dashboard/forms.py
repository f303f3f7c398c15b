"""Forms: read without surprises, and only from pages of ours."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl, urlsplit

from jobflow.errors import Malformed
from jobflow.web.body import SECONDS, patience
from jobflow.web.call import Call, Visit
from jobflow.web.dashboard.page import pages_of
from jobflow.web.problems import Refused

FORM_BYTES = 1024 * 1024  # a payload of 256 KiB may grow to three times that when it is percent-encoded
FIELDS = 1_000
TOKEN_FIELD = "csrf"  # noqa: S105  (a name)
STALE = "This form is too old or was not sent by a page of ours."


class Form:
    """Fields by name, in the order they came."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs
        self._last = dict(pairs)

    def text(self, name: str) -> str:
        """The field, empty when it is missing; of several the last one."""
        return self._last.get(name, "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def __contains__(self, name: object) -> bool:
        return name in self._last


async def read_form(request: Call) -> Form:
    """The form of a POST.

    Raises Refused: 403 when another site's page may have sent it, 408, 413, 415. Malformed.
    """
    visit = request.visit
    _check_origin(visit)
    media = visit.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media != b"application/x-www-form-urlencoded":
        raise Refused(415, "This is a form: send it as application/x-www-form-urlencoded.")
    raw = await patience.read(request, FORM_BYTES, SECONDS)
    if raw is None:
        raise Refused(413, f"The form is larger than {FORM_BYTES // 1024} KiB.")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except (UnicodeDecodeError, ValueError):
        raise Malformed(f"The form cannot be read: percent-encoded UTF-8 with at most {FIELDS} fields.") from None
    form = Form(pairs)
    sessions = pages_of(request).sessions
    session = sessions.find(visit)
    if session is None or not hmac.compare_digest(
        form.text(TOKEN_FIELD).encode(), sessions.form_token(session).encode()
    ):
        raise Refused(403, STALE)
    return form


def _check_origin(visit: Visit) -> None:
    """What browsers say of the page that sent a form: Sec-Fetch-Site, or Origin where that is not known."""
    site, origin = visit.headers.get(b"sec-fetch-site"), visit.headers.get(b"origin")
    if site is not None:
        ours = site in (b"same-origin", b"none")
    else:
        ours = not origin or urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") == visit.headers.get(b"host")
    if not ours:
        raise Refused(403, STALE)
