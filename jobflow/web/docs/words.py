"""What the description leaves to people: subjects, notes, the meaning of every member, and what to do about errors.

`Backquotes` are code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Subject(NamedTuple):
    anchor: str
    title: str
    text: str
    operations: tuple[str, ...]


SUBJECTS = (
    Subject(
        "submit",
        "Submit work",
        "When the answer is there, the row is committed. A handler may run twice; its result is accepted once.",
        ("submitJob", "submitJobs"),
    ),
    Subject("look", "Look at jobs", "", ("listJobs", "getJob")),
    Subject(
        "follow",
        "Follow live",
        "Streams of server-sent events. They end when the process that serves them shuts down; connect again, as browsers "
        "do by themselves after two seconds.",
        ("jobEvents", "events"),
    ),
    Subject("act", "Act on a job", "", ("retryJob", "cancelJob", "discardJob", "deleteJob")),
    Subject(
        "dead",
        "Dead letters",
        "Jobs that are out of attempts or failed for good. They stay until a person does something.",
        ("listDeadJobs", "retryDeadJobs"),
    ),
    Subject("system", "Queues, workers, types", "", ("listQueues", "getQueue", "listWorkers", "listTypes")),
    Subject("health", "Numbers and health", "", ("metrics", "livez", "readyz")),
    Subject("about", "About", "", ("index", "openapi", "docs")),
)

_ACTION = "Takes no body, or `{}`."
_SEARCH = (
    "With `error` or `payload.` filters the newest 100,000 jobs that pass the other filters are looked at, and `searched` "
    "says so. A search that takes longer than two seconds is 422: narrow it."
)

NOTES: Mapping[str, tuple[str, ...]] = {
    "submitJob": (
        "With an `Idempotency-Key` the same request may be sent again within 24 hours and makes no second job: it gets the "
        "first answer again, with `Idempotency-Replayed: true`. A request that was refused leaves its key free.",
        "200 instead of 201: a live job with this `unique_key` was there (`on_conflict: return`), and this is it.",
        "With `Prefer: wait=10` the answer is the job as it is when it has ended, or when the time is over.",
    ),
    "submitJobs": (
        "The ids come in the order of the request. One job that does not fit refuses all, and its fault names its index: "
        "`/jobs/3/priority`.",
    ),
    "listJobs": ("For the next page send `next_cursor` as `cursor`, with the same filters.", _SEARCH),
    "getJob": (
        "`If-None-Match` with the `ETag` of an earlier answer: 304 when nothing has changed.",
        "`wait` holds the answer until the job changes: from what `If-None-Match` knows, else from now. A job that has "
        "ended is answered at once.",
        "Asked for `text/html`, as browsers do, it leads to the job's page.",
    ),
    "jobEvents": (
        "`status` carries the whole job whenever it has changed, the first at once; `end` follows its last state, and the "
        "stream is over. Close it then: browsers would connect again.",
    ),
    "events": (
        "Only that something has changed, not what: `jobs`, `queues` or `workers`, at most one of each in a second. Ask again "
        "for what you show.",
    ),
    "retryJob": (
        "A `failed` or `scheduled` job runs now, and its attempts so far count. A `dead_letter` or `cancelled` one starts "
        "over: `attempt` and `rescues` are 0 again, the history stays.",
        _ACTION,
    ),
    "cancelJob": (
        "From `waiting`, `pending`, `scheduled` and `failed`; of a `cancelled` job nothing changes. A running one is "
        "asked to stop: 202, and it is `cancelled` as soon as its handler has ended, after 10 s in any case, unless it was "
        "done by then.",
        _ACTION,
    ),
    "discardJob": ("From `waiting`, `pending`, `scheduled`, `failed` and `cancelled`.", _ACTION),
    "deleteJob": ("From every status but `processing`.",),
    "listDeadJobs": ("The same as `GET /jobs?status=dead_letter`.", _SEARCH),
    "retryDeadJobs": (
        "`ids`, or any of the filters, or `all`: an empty body is 422, so that nobody revives everything by mistake.",
        "So many have `matched`; they are retried in the background. Jobs whose `unique_key` another live job has stay where "
        "they are.",
    ),
    "getQueue": ("A queue is there from its first job on.",),
    "listTypes": ("Of the process that answers.",),
    "metrics": (
        "From Postgres, so the numbers hold for all processes. With `Accept: text/plain; version=0.0.4` or "
        "`application/openmetrics-text` the answer is in Prometheus' format, with counters of this process beside them.",
    ),
    "livez": ("503 only when its loops have not moved for 60 s, so that a restart helps.",),
    "readyz": ("The body says why not. 200 with `degraded: redis`: everything works, slower.",),
    "index": ("For browsers the page with the state of this instance.",),
}

# What happened, and what to do.
ERRORS: Mapping[int, str] = {
    400: "It cannot be read: no JSON, a cursor of another list, a header that came twice. Mend the request.",
    401: "Send `Authorization: Bearer` and the value of `JOBFLOW_ADMIN_TOKEN`.",
    403: "A page of another site tried to change something. Send it from a page of this one, or from outside a browser.",
    404: "There is no such thing. Look at the id or the name.",
    405: "Not this method; the `Allow` header says which.",
    408: "The body did not come within 30 seconds, of a bulk POST within two minutes. Send it again, in smaller parts.",
    409: "Not possible in its present state, which `current_status` names. Look at the job again.",
    410: "Its day is no longer kept; `JOBFLOW_RETENTION_COMPLETED` sets for how long.",
    413: "The body is too large; `limit_bytes` says how much may come.",
    415: "Send `Content-Type: application/json` in UTF-8, without compression.",
    421: "The `Host` header names another server. Add the name to `JOBFLOW_HOSTS`.",
    422: "It was read and does not fit; `errors` names each place. Mend those.",
    429: "Too many POSTs. Wait as many seconds as `Retry-After` says, or send jobs together by `POST /jobs/bulk`.",
    500: "A bug of ours. The log has it under the `request_id`.",
    503: "Postgres is away. Try again after `Retry-After` seconds.",
}
_AGAIN = (
    "Postgres is away. Send it again after `Retry-After` seconds; with an `Idempotency-Key` that makes no second job."
)
_KEYS = "or the first request with this `Idempotency-Key` still runs: send it again after `Retry-After`."
SPECIAL_ERRORS: Mapping[tuple[str, int], str] = {
    ("submitJob", 409): f"A live job holds this `unique_key`: choose another, or say `on_conflict`; {_KEYS}",
    ("submitJob", 422): "A member does not fit: `errors` names each; or this `Idempotency-Key` came with another body.",
    ("submitJobs", 409): f"A live job holds a `unique_key`: choose another, or say `on_conflict`; {_KEYS}",
    (
        "submitJobs",
        422,
    ): "A job does not fit: `errors` names each place; or this `Idempotency-Key` came with another body.",
    ("submitJob", 503): _AGAIN,
    ("submitJobs", 503): _AGAIN,
    ("listJobs", 400): "The cursor is of another list: begin again without it.",
    ("listDeadJobs", 400): "The cursor is of another list: begin again without it.",
    (
        "retryJob",
        409,
    ): "Not from its status (a completed job: submit it again), or another live job has its `unique_key`.",
    ("livez", 503): "Restart the process.",
    ("readyz", 503): "Send requests elsewhere until it is 200: it starts, drains, or Postgres is away.",
}

PARAMETERS: Mapping[str, str] = {
    "job_id": "Id of the job, a UUID.",
    "name": "Name of the queue.",
}

# Schema → member → meaning.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "JobRequest": {
        "type": "The handler that runs it.",
        "payload": "What the handler gets; checked against its type when this process handles it.",
        "queue": "If not given: the type's, else `default`.",
        "priority": "0 runs first; others are slowed, never starved. If not given: the type's, else 5.",
        "max_attempts": "All runs counted. If not given: the type's, else 20; 5 for a type that nobody handles.",
        "run_at": "Not before then. If not given: at once.",
        "delay": "Seconds from now, instead of `run_at`.",
        "timeout": "Seconds for one attempt. If not given: the type's, else 300.",
        "expires_at": "Cancelled when it has not started by then.",
        "unique_key": "At most one live job has it.",
        "on_conflict": "When a live job has the `unique_key`: 409, that job (200), or this one in its place.",
        "tags": "Words to find it by.",
    },
    "BulkRequest": {"jobs": "1 to 10,000, each as in `POST /jobs` and at most 256 KiB."},
    "DeadFilter": {
        "ids": "These, and no filter beside them.",
        "type": "Job type.",
        "queue": "Queue.",
        "tag": "Has this tag.",
        "error": "Text in the last error, any case.",
        "created_after": "Created then or later.",
        "created_before": "Created earlier.",
        "all": "Every dead-letter job; nothing beside it.",
    },
    "Job": {
        "id": "UUIDv7, so ids sort by the time of submission.",
        "type": "The handler that runs it.",
        "status": "Where it stands.",
        "queue": "Where it waits.",
        "priority": "0 runs first.",
        "payload": "What the handler gets.",
        "attempt": "Number of the current or last run; 0 before the first.",
        "max_attempts": "All runs counted.",
        "run_at": "Not before.",
        "timeout": "Seconds for one attempt.",
        "expires_at": "Cancelled when it has not started by then.",
        "unique_key": "At most one live job has it.",
        "tags": "Words to find it by.",
        "progress": "Always null yet.",
        "result": "What the handler returned.",
        "error": "Of the last failure.",
        "rescues": "How often its worker process was lost.",
        "worker": "Process of the current or last run.",
        "cancel_requested": "Whether its run was asked to stop.",
        "cancel_reason": "Why it was cancelled.",
        "batch": "Always null yet.",
        "schedule": "Always null yet.",
        "trace_id": "Always null yet.",
        "created_at": "When it was submitted.",
        "updated_at": "When it last changed.",
        "started_at": "Of the current or last run.",
        "finished_at": "When it reached its last state.",
        "attempts": "Its history, oldest first; only where one job is asked for.",
    },
    "JobError": {"type": "Class of the exception.", "message": "What it said."},
    "Attempt": {
        "number": "Counts on over the whole history.",
        "attempt": "Begins anew when a dead job is retried.",
        "worker": "The process that ran it.",
        "started_at": "When it was claimed.",
        "finished_at": "Null while it runs.",
        "outcome": "The cause that ended it, such as `completed`, `errored`, `exhausted`, `snoozed`, `lost`.",
        "error": "Why it failed.",
        "traceback": "Where it failed.",
    },
    "JobList": {
        "items": "Jobs, newest first.",
        "next_cursor": "Of the next page; null on the last.",
        "total": "Exact up to 10,000.",
        "total_capped": "There are more than `total`.",
        "searched": "A text or payload filter looked at so many of the newest only.",
    },
    "BulkAnswer": {"jobs": "In the order of the request."},
    "BulkItem": {"id": "Of the job.", "existing": "A live job with this `unique_key` was there; only then given."},
    "Matched": {"matched": "Jobs that will be retried."},
    "QueueList": {"items": "By name."},
    "Queue": {
        "name": "1 to 64 of `a-z 0-9 _ -`.",
        "by_status": "Jobs of each status.",
        "ready": "Could start now.",
        "oldest_ready_age": "Seconds that the oldest of those has waited.",
        "in_per_second": "Submitted, over the last minute.",
        "out_per_second": "Ended, over the last minute.",
        "paused": "Nothing is taken from it.",
        "paused_reason": "Why.",
        "paused_until": "Until when.",
        "created_at": "When its first job came.",
    },
    "WorkerList": {"items": "Living processes first."},
    "Worker": {
        "id": "New at each start.",
        "kind": "What runs there.",
        "host": "Name of its machine.",
        "pid": "Number of its process.",
        "version": "Of Jobflow.",
        "state": "`alive`, `draining`, `lost` or `stopped`.",
        "late": "Its lease has run out.",
        "concurrency": "Jobs it may run at once.",
        "running": "Jobs it runs.",
        "types": "Job types it handles.",
        "started_at": "When it started.",
        "beat_at": "Its last heartbeat.",
        "lease_until": "Its jobs run again when it is silent until then.",
    },
    "TypeList": {"items": "By name."},
    "TypeView": {
        "name": "The job type.",
        "queue": "Where its jobs go unless they say otherwise.",
        "priority": "Theirs unless they say otherwise.",
        "timeout": "The same, in seconds.",
        "max_attempts": "The same.",
        "payload_schema": "JSON Schema of the payload.",
    },
    "MetricsView": {
        "total_jobs": "All that are kept.",
        "active_jobs": "Running.",
        "completed_jobs": "Of that status.",
        "failed_jobs": "Of that status.",
        "dead_letter_jobs": "Of that status.",
        "queue_length": "Could start now, in all queues, paused ones too.",
        "retry_queue_length": "Failed, the next attempt is not due yet.",
        "dlq_length": "The same as `dead_letter_jobs`.",
        "by_status": "Jobs of each status.",
        "queues": "As `GET /queues` has them.",
    },
    "Problem": {
        "type": "Which problem: a URN that does not change.",
        "title": "The problem in words.",
        "status": "The HTTP status.",
        "detail": "What is wrong this time.",
        "instance": "The path.",
        "request_id": "Yours, if you sent `X-Request-Id`; it is in the log, too.",
        "errors": "With 422: each place, as a JSON `pointer` into the body or the name of a query `parameter`.",
    },
}
