"""/dashboard/dlq: the dead letters, and back to life with one, some or all that match."""

from __future__ import annotations

from litestar import get, post
from litestar.types import ASGIApp

from jobflow.client import DeadFilter
from jobflow.listing import JobFilter
from jobflow.web.call import Call
from jobflow.web.dashboard import address
from jobflow.web.dashboard.actions import ACTIONS
from jobflow.web.dashboard.filters import number
from jobflow.web.dashboard.forms import read_form
from jobflow.web.dashboard.jobs import DEAD, confirm, show_list, tidy
from jobflow.web.dashboard.page import live, see
from jobflow.web.query import FILTERS, read_listing
from jobflow.web.schemas import fit

PATH = "/dashboard/dlq"


@get(PATH)
@live
@tidy
async def dead_letters(request: Call) -> ASGIApp:
    return await show_list(request, "dlq", *read_listing(request, DEAD), actions=[ACTIONS["retry"], ACTIONS["delete"]])


@post(f"{PATH}/retry")
async def retry_matching(request: Call) -> ASGIApp:
    """Retry every dead letter that matches the filter, once a page has said how many those are."""
    form = await read_form(request)
    pairs = [(name, form.text(name)) for name in sorted(FILTERS) if form.text(name)]
    back = address.link(PATH, pairs)
    wanted = fit(dict(pairs) | {"all": not pairs}, DeadFilter)
    if form.text("confirmed"):
        matched = await request.parts.client.retry_dead(wanted)
        return see(back, f"Retrying {number(matched)} {'job' if matched == 1 else 'jobs'}, newest first.")
    chosen = JobFilter(statuses=DEAD, **{name: getattr(wanted, name) for name in FILTERS})
    count = await request.parts.store.count_matching(chosen)
    question = f"Retry {number(count)} {'job' if count == 1 else 'jobs'}?"
    hint = "All dead letters." if not pairs else "Those that match: " + ", ".join(f"{n} {v}" for n, v in pairs) + "."
    hint += " Each starts over with all its attempts."
    return confirm(request, f"{PATH}/retry", question, hint, pairs, back, ACTIONS["retry"])


ROUTES = [dead_letters, retry_matching]
