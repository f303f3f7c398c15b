"""/dashboard/jobs/{id}: one job: how far it is, each of its runs, what went in and came out, and what can be done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from litestar import get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from jobflow.errors import NotFound
from jobflow.lifecycle import FINAL, Attempt, Job, Status
from jobflow.web.call import Answer, Call
from jobflow.web.dashboard.actions import named, possible
from jobflow.web.dashboard.filters import age, look, words
from jobflow.web.dashboard.forms import read_form
from jobflow.web.dashboard.jobs import PATH, confirm
from jobflow.web.dashboard.page import POLICY, leave, live, see, show
from jobflow.web.jobs import read_id

RUNS = 30  # of the history on a page, the newest


class Step(NamedTuple):
    """One station of a job's way. ``done``: it lies behind; ``now``: the job stands here."""

    title: str
    at: datetime | None
    tone: str
    done: bool
    now: bool = False


@get(PATH + "/{job_id:str}")
@live
async def job(request: Call, job_id: FromPath[str]) -> ASGIApp:
    found = await request.parts.store.get_job(read_id(job_id))
    attempts = found.attempts if isinstance(found.attempts, list) else []
    return show(
        request,
        "job",
        fragment="job",
        job=found,
        steps=steps_of(found),
        story=story_of(found),
        attempts=[(attempt, seconds_of(attempt)) for attempt in reversed(attempts[-RUNS:])],
        runs=len(attempts),
        actions=[] if stopping(found) else possible(found.status),
        final=found.status in FINAL,
        stopping=stopping(found),
    )


@get(PATH + "/{job_id:str}/{part:str}")
async def raw(request: Call, job_id: FromPath[str], part: FromPath[str]) -> ASGIApp:
    """The whole payload or result as JSON, as it is. Raises NotFound."""
    found = await request.parts.store.get_job(read_id(job_id))
    body = {"payload": found.payload, "result": found.result}.get(part)
    if body is None:
        raise NotFound("This job has no such part.")
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Answer(200, bytes(body), [*headers, (b"content-security-policy", POLICY.encode())])


@post(PATH + "/{job_id:str}/{action:str}")
async def act(request: Call, job_id: FromPath[str], action: FromPath[str]) -> ASGIApp:
    """Retry, cancel, discard or delete it. Raises NotFound, Conflict: not from its state."""
    form = await read_form(request)
    wanted, id = named(action), read_id(job_id)
    here = f"{PATH}/{id}"
    if wanted.asks and not form.text("confirmed"):
        return confirm(request, f"{here}/{action}", f"{wanted.title} this job?", wanted.hint + ".", [], here, wanted)
    done = await wanted.do(request.parts.client, id)
    if wanted.name == "delete":
        return leave(request.visit, PATH, f"Job {id} is deleted.")
    return see(here, "Cancel: its handler was asked to stop." if stopping(done) else f"{wanted.title}: done.")


def stopping(job: Job) -> bool:
    """Whether it runs and was asked to stop."""
    return job.status == Status.PROCESSING and job.cancel_requested


def steps_of(job: Job) -> list[Step]:
    """From its submission to its end, as far as it has come."""
    tone, status = look(job.status).tone, Status(job.status)
    running = status is Status.PROCESSING
    ended = status in FINAL
    started = job.started_at if running or ended else None
    steps = [Step("submitted", job.created_at, "ok", done=True)]
    if not running and not ended:
        steps.append(Step(words(status), job.run_at, tone, done=False, now=True))
    if started or not ended:
        steps.append(Step("started" if ended else "running", started, "run", done=ended, now=running))
    steps.append(
        Step(words(status) if ended else "end", job.finished_at if ended else None, tone, done=False, now=ended)
    )
    return steps


def story_of(job: Job, now: datetime | None = None) -> str:
    """In one sentence: what happens next, or why nothing does."""
    due = job.run_at <= (now or datetime.now(UTC))
    left = job.max_attempts - job.attempt
    match Status(job.status):
        case Status.SCHEDULED:
            return "Its time has come; the next free worker takes it." if due else f"Runs {age(job.run_at, now)}."
        case Status.PENDING:
            return "Ready. The next free worker takes it, unless its queue is paused."
        case Status.FAILED:
            when = "now, as soon as a worker is free" if due else age(job.run_at, now)
            return (
                f"Attempt {job.attempt} failed. It runs again {when}; {left} of {job.max_attempts} attempts are left."
            )
        case Status.PROCESSING:
            asked = " It was asked to stop." if job.cancel_requested else ""
            return f"Attempt {job.attempt} of {job.max_attempts} is running.{asked}"
        case Status.DEAD_LETTER:
            return "Failed for good. Only a person brings it back: a retry starts it over with all its attempts."
        case Status.CANCELLED:
            return f"Stopped on purpose: {job.cancel_reason or 'no reason was given'}."
        case Status.WAITING:
            return "Waits for other jobs to end."
        case Status.COMPLETED:
            return "Done."


def seconds_of(attempt: Attempt) -> float | None:
    """How long a run took, or takes already."""
    if attempt.started_at is None:
        return None
    return ((attempt.finished_at or datetime.now(UTC)) - attempt.started_at).total_seconds()


ROUTES = [job, raw, act]
