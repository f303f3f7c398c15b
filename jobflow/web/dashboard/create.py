"""/dashboard/create: submit a job by hand, with a field for each member of its payload where its type says which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import get, post
from litestar.types import ASGIApp

from jobflow import payloads
from jobflow.client import JobRequest, Submission
from jobflow.errors import Fault, Invalid, UniqueConflict
from jobflow.lifecycle import NewJob
from jobflow.registry import Registry
from jobflow.web.call import Answer, Call
from jobflow.web.dashboard.address import read_pairs
from jobflow.web.dashboard.forms import Form, read_form
from jobflow.web.dashboard.page import see, show
from jobflow.web.dashboard.schema import Field, fields_of, read_payload
from jobflow.web.queues import schema_of
from jobflow.web.schemas import fit

PATH = "/dashboard/create"
WHOLE = ("priority", "max_attempts")
DECIMAL = ("delay", "timeout")
TEXTS = ("queue", "unique_key", "run_at", "expires_at")


@get(PATH)
async def new_job(request: Call) -> ASGIApp:
    """``?type=`` chooses whose fields are shown; other parameters fill them in."""
    return filled_in(request, Form(read_pairs(request.query_bytes)), 200, ())


@post(PATH)
async def create_job(request: Call) -> ASGIApp:
    """303 to the new job, or the form again with what was typed and what is wrong with it."""
    form = await read_form(request)
    try:
        job = _prepared(request, form)
        submitted = await request.parts.client.submit(Submission(jobs=(job,)))
    except Invalid as error:
        return filled_in(request, form, 422, error.faults)
    except UniqueConflict as error:
        return filled_in(request, form, 409, (Fault("/unique_key", str(error)),))
    return see(f"/dashboard/jobs/{submitted.jobs[0].id}", "Submitted.")


def _prepared(request: Call, form: Form) -> NewJob:
    """Raises Invalid with everything that is wrong."""
    payload, faults = read_payload(payload_fields(request.parts.registry, form.text("type")), form)
    tree, wrong = read_options(form)
    faults += wrong
    try:
        payloads.check(tree | {"payload": payload})
        job = request.parts.client.prepare(fit(tree | {"payload": payload}, JobRequest))
    except Invalid as error:
        told = [fault.pointer for fault in faults]
        # What is wrong inside a member is said there, not once more of the member that holds it.
        more = [
            f
            for f in error.faults
            if not any(known == f.pointer or known.startswith(f"{f.pointer}/") for known in told if f.pointer)
        ]
        raise Invalid(*faults, *more) from None
    if faults:
        raise Invalid(*faults)
    return job


def read_options(form: Form) -> tuple[dict[str, Any], list[Fault]]:
    """All of a JobRequest but its payload; empty fields mean the default of the type."""
    tree: dict[str, Any] = {"type": form.text("type").strip()}
    faults: list[Fault] = []
    for name in (*WHOLE, *DECIMAL):
        if text := form.text(name).strip():
            try:
                tree[name] = int(text) if name in WHOLE else float(text)
            except ValueError:
                faults.append(Fault(f"/{name}", f"{name} must be a number"))
    for name in TEXTS:
        if text := form.text(name).strip():
            local = name.endswith("_at") and len(text) == len("2030-01-31T12:00")
            tree[name] = f"{text}:00Z" if local else text
    if tags := [tag.strip() for tag in form.text("tags").split(",") if tag.strip()]:
        tree["tags"] = tags
    return tree, faults


def payload_fields(registry: Registry, type: str) -> list[Field]:
    known = registry.get(type)
    return [] if known is None else fields_of(schema_of(known.payload_type))


def filled_in(request: Call, form: Form, status: int, faults: Sequence[Fault]) -> Answer:
    """The form with what was typed; each fault at its field, the others on top."""
    registry, type = request.parts.registry, form.text("type").strip()
    fields = payload_fields(registry, type)
    places = [f"/{name}" for name in ("type", "tags", *WHOLE, *DECIMAL, *TEXTS)]
    places += [field.pointer for field in fields] or ["/payload"]
    at: dict[str, str] = {}
    elsewhere = []
    for fault in faults:
        place = next((p for p in places if fault.pointer == p or fault.pointer.startswith(p + "/")), None)
        if place is None:
            elsewhere.append(fault)
        else:
            inside = fault.pointer.removeprefix(place)
            at.setdefault(place, f"{inside} {fault.detail}".strip())
    return show(
        request, "create", status, fragment="payload",
        form=form, type=type, fields=fields, at=at, elsewhere=elsewhere,
        types=sorted(registry.types), kind=registry.get(type), defaults=registry.defaults_for(type),
        more=any(form.text(name) for name in (*WHOLE, *DECIMAL, *TEXTS, "tags")) or any(p in at for p in places[1:10]),
    )  # fmt: skip


ROUTES = [new_job, create_job]
