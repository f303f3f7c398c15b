"""The URL of a list of jobs: filters as people type them, turned into the API's query, and the links around it."""

from __future__ import annotations

from collections import defaultdict
from urllib.parse import parse_qsl, urlencode

from jobflow.web.query import PAYLOAD

SEARCH = "payload"  # a form field of ours: path=value
MOMENTS = ("created_after", "created_before")
PAGING = ("cursor", "offset")

Pairs = list[tuple[str, str]]


def read_pairs(raw: bytes) -> Pairs:
    """Parameters as they came; what cannot be read is left to the API's reader, which says what is wrong."""
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)[:100]


def tidy(pairs: Pairs) -> Pairs:
    """Without empty fields; ``payload=user.id=42`` as ``payload.user.id=42``; times without a zone are UTC."""
    tidied = []
    for name, value in pairs:
        if not value.strip():
            continue
        if name == SEARCH and "=" in value:
            path, _, wanted = value.partition("=")
            tidied.append((PAYLOAD + path.strip(), wanted.strip()))
        elif name in MOMENTS and len(value) == len("2030-01-31T12:00"):
            tidied.append((name, value + ":00Z"))
        else:
            tidied.append((name, value.strip()))
    return tidied


def typed(pairs: Pairs) -> defaultdict[str, str]:
    """What stands in the fields of the filter form: the other way round."""
    fields = defaultdict(str, pairs)
    for moment in MOMENTS:
        if moment in fields:
            fields[moment] = fields[moment][: len("2030-01-31T12:00")]
    searches = [(name, value) for name, value in pairs if name.startswith(PAYLOAD)]
    if searches:
        fields[SEARCH] = f"{searches[0][0].removeprefix(PAYLOAD)}={searches[0][1]}"
    return fields


def link(path: str, pairs: Pairs, **changes: str | None) -> str:
    """The same list with some parameters set (None: removed), from its first page unless ``cursor`` is given."""
    gone = {*changes, *PAGING}
    kept = [(name, value) for name, value in pairs if name not in gone]
    query = urlencode(kept + [(name, value) for name, value in changes.items() if value is not None])
    return f"{path}?{query}" if query else path


def local(path: str, usual: str) -> str:
    """A path of ours to go back to; ``usual`` for anything that might lead elsewhere."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else usual
