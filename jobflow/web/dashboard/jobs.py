"""/dashboard/jobs: the list with all its filters in the URL, and what is done to the selected ones."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.types import ASGIApp

from jobflow.lifecycle import Status
from jobflow.listing import JobFilter
from jobflow.web import cursor
from jobflow.web.call import Answer, Call
from jobflow.web.dashboard import address
from jobflow.web.dashboard.actions import ACTIONS, SELECTED, act_on_all, named
from jobflow.web.dashboard.forms import read_form
from jobflow.web.dashboard.page import live, see, show, wants_part
from jobflow.web.jobs import read_id
from jobflow.web.problems import Refused
from jobflow.web.query import Paging, read_listing

PATH = "/dashboard/jobs"
SUGGESTED = 200  # names that a filter field offers


@get(PATH)
@live
async def jobs(request: Call) -> ASGIApp:
    pairs = address.read_pairs(request.query_bytes)
    if (tidied := address.tidy(pairs)) != pairs:
        return see(address.link(PATH, tidied, cursor=dict(tidied).get("cursor")))
    wanted, paging = read_listing(request)
    totals = await request.parts.store.totals()
    tabs = [("all", address.link(PATH, pairs, status=None), totals.total, not wanted.statuses)]
    tabs += [
        (status, address.link(PATH, pairs, status=status), totals.by_status[status], wanted.statuses == (status,))
        for status in Status
    ]
    context = await listed(request, PATH, pairs, wanted, paging)
    return show(request, "jobs", fragment="jobs", tabs=tabs, actions=list(ACTIONS.values()), **context)


async def listed(request: Call, path: str, pairs: address.Pairs, wanted: JobFilter, paging: Paging) -> dict[str, Any]:
    """What both lists of jobs show: a page of them, the filters, and the links to other pages."""
    before = None if paging.cursor is None else cursor.decode(paging.cursor, wanted)
    page = await request.parts.store.list_jobs(wanted, limit=paging.limit, before=before, offset=paging.offset)
    return {
        "page": page,
        "wanted": wanted,
        "typed": address.typed(pairs),
        "filtered": any(name not in ("status", "limit", *address.PAGING) for name, _ in pairs),
        "here": f"{path}?{request.query_bytes.decode('latin-1')}" if request.query_bytes else path,
        "newest": address.link(path, pairs) if before is not None or paging.offset else None,
        "older": address.link(path, pairs, cursor=cursor.encode(page.next, wanted)) if page.next else None,
        "types": sorted(request.parts.registry.types)[:SUGGESTED],
        "queues": [] if wants_part(request.visit) else sorted(await request.parts.store.list_queues())[:SUGGESTED],
    }


@post(PATH)
async def act_on_selected(request: Call) -> ASGIApp:
    """Do something to the selected jobs, after a page (or a dialog) has asked whether that is meant."""
    form = await read_form(request)
    action = named(form.text("action"))
    back = address.local(form.text("back"), PATH)
    ids = [read_id(text) for text in dict.fromkeys(form.all("id"))]
    if len(ids) > SELECTED:
        raise Refused(413, f"At most {SELECTED} jobs at once.")
    if not ids:
        return see(back, "Nothing is selected.")
    if not form.text("confirmed"):
        return confirm(
            request,
            PATH,
            f"{action.title} {len(ids)} {'job' if len(ids) == 1 else 'jobs'}?",
            action.hint,
            form.pairs,
            back,
        )
    return see(back, await act_on_all(action, request.parts.client, ids))


def confirm(request: Call, path: str, question: str, hint: str, pairs: address.Pairs, back: str) -> Answer:
    """The page that asks before something happens; it sends the same form again, with ``confirmed``."""
    fields = [(name, value) for name, value in pairs if name not in ("csrf", "confirmed")]
    return show(request, "confirm", action_path=path, question=question, hint=hint, fields=fields, back=back)


@get("/dashboard/find")
async def find(request: Call) -> ASGIApp:
    """The search box: an id leads to its job, anything else to the jobs of that type. Raises NotFound."""
    text = dict(address.read_pairs(request.query_bytes)).get("id", "").strip()
    if "-" in text and len(text) == 36:
        return see(f"{PATH}/{read_id(text)}")
    return see(address.link(PATH, [], type=text or None))


DEAD = (Status.DEAD_LETTER.value,)
ROUTES = [jobs, act_on_selected, find]
