"""/dashboard/jobs: the list with all its filters in the URL, and what is done to the selected ones."""

from __future__ import annotations

from functools import wraps
from typing import Any
from uuid import UUID

from litestar import get, post
from litestar.types import ASGIApp

from jobflow.lifecycle import Status
from jobflow.listing import JobFilter
from jobflow.web import cursor
from jobflow.web.call import Answer, Call
from jobflow.web.dashboard import address
from jobflow.web.dashboard.actions import ACTIONS, SELECTED, Action, act_on_all, named
from jobflow.web.dashboard.forms import read_form
from jobflow.web.dashboard.page import Handler, live, see, shared, show, wants_part
from jobflow.web.jobs import read_id
from jobflow.web.problems import Refused
from jobflow.web.query import FILTERS, Paging, read_listing

PATH = "/dashboard/jobs"
DEAD = (Status.DEAD_LETTER.value,)
SUGGESTED = 200  # names that a filter field offers
UPWARDS = "~"  # before a cursor: the page above its id


def tidy(page: Handler) -> Handler:
    """Lead a list whose filter form was just sent to the short URL of the same list."""

    @wraps(page)
    async def tidied(request: Call) -> ASGIApp:
        pairs = address.read_pairs(request.query_bytes)
        if (short := address.tidy(pairs)) != pairs:
            return see(address.link(request.visit.path, short, cursor=dict(short).get("cursor")))
        return await page(request)

    return tidied


@get(PATH)
@live
@tidy
async def jobs(request: Call) -> ASGIApp:
    pairs = address.read_pairs(request.query_bytes)
    wanted, paging = read_listing(request)
    totals = await shared(request, "totals", request.parts.store.totals)
    tabs = [("all", address.link(PATH, pairs, status=None), totals.total, not wanted.statuses)]
    tabs += [
        (status, address.link(PATH, pairs, status=status), totals.by_status[status], wanted.statuses == (status,))
        for status in Status
    ]
    return await show_list(request, "jobs", wanted, paging, tabs=tabs, actions=list(ACTIONS.values()))


async def show_list(request: Call, name: str, wanted: JobFilter, paging: Paging, **context: Any) -> Answer:
    """A page of a list of jobs, with the filter and the links to other pages. Raises Malformed: the cursor."""
    path, pairs, given = request.visit.path, address.read_pairs(request.query_bytes), paging.cursor or ""
    edge = cursor.decode(given.removeprefix(UPWARDS), wanted) if given else None
    way = "after" if given.startswith(UPWARDS) else "before"
    page = await request.parts.store.list_jobs(wanted, limit=paging.limit, offset=paging.offset, **{way: edge})
    if way == "after" and len(page.items) < paging.limit:
        return see(address.link(path, pairs))  # the top, where new jobs appear
    top = edge is None and not paging.offset
    return show(
        request,
        name,
        fragment=name,
        page=page,
        wanted=wanted,
        typed=address.typed(pairs),
        filters=[
            (name, value, address.link(path, pairs, **{name: None}))
            for name, value in pairs
            if name not in ("status", "limit", *address.PAGING)
        ],
        here=request.visit.target,
        newest=None if top else address.link(path, pairs),
        newer=_turn(path, pairs, UPWARDS, None if top or not page.items else page.items[0].id, wanted),
        older=_turn(path, pairs, "", page.next, wanted),
        types=sorted(request.parts.registry.types)[:SUGGESTED],
        queues=[] if wants_part(request.visit) else sorted(await request.parts.store.list_queues())[:SUGGESTED],
        # A redrive takes no payload filter, so the button would promise what it does not do.
        redrive=wanted.statuses == DEAD and not wanted.payload and [(n, v) for n, v in pairs if n in FILTERS],
        **context,
    )


def _turn(path: str, pairs: address.Pairs, way: str, edge: UUID | None, wanted: JobFilter) -> str | None:
    return address.link(path, pairs, cursor=way + cursor.encode(edge, wanted)) if edge else None


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
        question = f"{action.title} {len(ids)} {'job' if len(ids) == 1 else 'jobs'}?"
        return confirm(request, PATH, question, action.hint + ".", form.pairs, back, action)
    return see(back, await act_on_all(action, request.parts.client, ids))


def confirm(
    request: Call, path: str, question: str, hint: str, pairs: address.Pairs, back: str, action: Action
) -> Answer:
    """The page that asks before something happens; it sends the same form again, with ``confirmed``."""
    fields = [(name, value) for name, value in pairs if name not in ("csrf", "confirmed")]
    return show(
        request, "confirm", action_path=path, question=question, hint=hint, fields=fields, back=back,
        verb=action.title, tone="danger" if action.asks else "primary",
    )  # fmt: skip


@get("/dashboard/find")
async def find(request: Call) -> ASGIApp:
    """The search box: an id leads to its job, anything else to the jobs of that type. Raises NotFound."""
    text = dict(address.read_pairs(request.query_bytes)).get("id", "").strip()
    if "-" in text and len(text) == 36:
        return see(f"{PATH}/{read_id(text)}")
    return see(address.link(PATH, [], type=text or None))


ROUTES = [jobs, act_on_selected, find]
